"""What a chat template writes around turns, found by rendering placeholders."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.data.template import DateError, TemplateError
from kit.data.turn_keys import THOUGHTS

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

    from kit.data.template import ChatTemplate

# Words no template would write itself; the order tells the turns apart.
_SYSTEM, _ASKED, _TOLD, _ASKED_AGAIN, _TOLD_AGAIN = "zq0system", "zq1asked", "zq2told", "zq3asked", "zq4told"
_ROLES = ("user", "assistant", "user", "assistant")
_THOUGHT = "zq5thought"
_SHORTEST_MARKER = 3  # characters: "A:" occurs in too many texts
_MOST_MARKERS = 100  # all text is searched for each; templates write about ten


@dataclass(frozen=True)
class TurnParts:
    """What a template writes around turns."""

    merges_system: bool  # it rejects or drops system messages, so they are merged into the first user turn
    lead: str  # between the prompt and an answer, such as a space
    end: str  # the special token after an assistant's turn; empty for none
    markers: tuple[str, ...]  # plain text between turns, such as [INST]
    thoughts: tuple[str, ...] = ()  # keys of an answer's turn that it renders before the answer


def turn_parts(template: ChatTemplate, special: re.Pattern[str]) -> TurnParts:
    """Find what a template writes around turns; ``special`` matches the special tokens.

    Raises:
        DateError: It uses today's date, and none is pinned.
    """
    turns = [
        {"role": role, "content": content}
        for role, content in zip(_ROLES, (_ASKED, _TOLD, _ASKED_AGAIN, _TOLD_AGAIN), strict=True)
    ]
    system = {"role": "system", "content": _SYSTEM}
    prompt = _rendered(template, turns[:1], add_generation_prompt=True)
    before, _, behind = _rendered(template, turns[:2]).partition(_TOLD)
    lead = before.removeprefix(prompt) if prompt and before.startswith(prompt) else ""
    end = special.match(behind.lstrip())
    # Mistral v0.2's first template raises; some templates silently drop the message, which is worse.
    with_system = _rendered(template, [system, *turns])
    merges = _SYSTEM not in with_system and _SYSTEM not in _rendered(template, [system, *turns[:2]])
    whole = with_system if not merges and with_system else _rendered(template, turns)
    thoughts = (key for key in THOUGHTS if _THOUGHT in _rendered(template, [turns[0], {**turns[1], key: _THOUGHT}]))
    markers = tuple(dict.fromkeys(itertools.islice(_markers(whole, special), _MOST_MARKERS)))
    return TurnParts(merges, lead, end[0] if end else "", markers, tuple(thoughts))


def _rendered(template: ChatTemplate, turns: list[dict[str, str]], *, add_generation_prompt: bool = False) -> str:
    try:
        return template.render(turns, add_generation_prompt=add_generation_prompt)
    except DateError:
        raise
    except TemplateError:
        return ""


def _markers(text: str, special: re.Pattern[str]) -> Iterator[str]:
    """Yield the text between two turns, line by line; before the first there may be a whole preamble."""
    order = (_SYSTEM, _ASKED, _TOLD, _ASKED_AGAIN, _TOLD_AGAIN)
    for one, next_one in itertools.pairwise(name for name in order if name in text):
        between = text.partition(one)[2].partition(next_one)[0]
        for piece in special.split(between):
            for line in map(str.strip, piece.splitlines()):
                if len(line) >= _SHORTEST_MARKER and not line.isalnum():
                    yield line
