"""The keys of turns, by an allow-list: each is kept, decides what is learnt, is reported as unused, or is refused.

Programs mark turns to learn in many ways: ``weight`` (OpenAI's format, Axolotl), ``train`` and ``training`` (Axolotl),
``loss`` (ms-swift, XTuner), a row's ``loss_mask``. Those whose meaning is plain are followed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from kit.data.row_values import NOTHING, RowError, is_blank, near, shown_key, text_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SPOKEN = ("role", "from", "content", "value")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # before an answer: keys that some templates write
FLAGS = ("weight", "loss_weight", "train", "training", "trainable", "loss")  # 0 or 1: whether a turn is learnt
_MASK = "loss_mask"  # as a row's list, a flag for each turn
# 1 is "learnt" to some programs and "not learnt" to others; or it is a mask of tokens, which are another model's.
_UNCLEAR = (_MASK, "loss_scale", "mask", "masked", "assistant_mask", "assistant_masks", "completion_mask")
_MASKS = dict.fromkeys((*FLAGS, *_UNCLEAR)).keys()
# What only tells turns apart: no template is given it, and nothing said depends on it.
_BOOKKEEPING = frozenset(
    {"id", "uuid", "message_id", "parent_id", "turn_id", "turn_identifier", "index", "timestamp", "created_at"}
)
_KNOWN = (*SPOKEN, *THOUGHTS, *FLAGS)
_SAY_IT = (
    "weight: 0 or 1 in an answer's turn says whether it is learnt; or write what is not learnt as prompt (a list of "
    "turns), and what is as completion"
)

Flags = tuple[tuple[str, bool], ...]  # each key that says whether a turn is learnt, and what it says


class Beside(NamedTuple):
    """What a turn says beside its role and its content."""

    flags: Flags = ()  # whether it is learnt
    thoughts: tuple[tuple[str, str], ...] = ()  # key and text
    left: tuple[str, ...] = ()  # keys that are left out


NOTHING_BESIDE = Beside()


def beside_of(turn: dict[str, Any]) -> Beside:
    """Sort what a turn says beside who speaks and what.

    Raises:
        RowError: With the first key that is not known, or whose value says nothing that could be done.
    """
    more = {key: value for key, value in turn.items() if key not in SPOKEN and value not in NOTHING}
    flags, thoughts, left = [], [], []
    for key, value in more.items():
        if key in FLAGS:
            flags.append((key, _flag(key, value, "turn")))
        elif key in THOUGHTS:
            if not is_blank(text := text_of(turn, key)):
                thoughts.append((key, text))
        elif key in _BOOKKEEPING:
            left.append(key)
        elif key in _UNCLEAR:
            raise _unclear(key, "turn")
        else:
            raise lost(key, "turn", _KNOWN)
    return Beside(tuple(flags), tuple(thoughts), tuple(left))


def like_a_mask(key: str) -> str:
    """Return the key of a mask that another is but for its form, such as ``Weights``; empty for none."""
    return _MASK_FORMS.get(_plain(key), "") if key not in _MASKS else ""


def _plain(key: str) -> str:
    return re.sub("[-_ ]", "", key.casefold()).removesuffix("s")


_MASK_FORMS = {_plain(key): key for key in _MASKS}


def masks_of(row: dict[str, Any], used: Collection[str]) -> list[tuple[str, list[bool]]]:
    """Return the lists beside a row's turns that say of each whether it is learnt, by their keys.

    Raises:
        RowError: A key says that nothing is learnt, that it is in part, or what no two programs read alike.
    """
    masks = []
    for key in () if _MASKS.isdisjoint(row) else _MASKS:
        value = row.get(key)
        if value in NOTHING or key in used:
            continue
        if isinstance(value, list) and key in (*FLAGS, _MASK):
            masks.append((key, [_flag(key, one, "row") for one in value]))
        elif key in _UNCLEAR:
            raise _unclear(key, "row")
        elif not _flag(key, value, "row"):
            raise RowError(
                f"has {key} in its row, which says that it is not to be learnt", f"take the row or {key} out"
            )
    return masks


def is_learnt(role: str, flags: Flags, *, answers: bool) -> bool:
    """Decide whether a turn is learnt; ``answers`` tells whether answers are where it stands, unless a flag objects.

    Raises:
        RowError: Its flags contradict each other, or ask to learn what is no answer.
    """
    is_answer = answers and role == "assistant"
    if not flags:
        return is_answer
    asked = {said: key for key, said in flags}
    if len(asked) > 1:
        raise RowError(f"has {asked[True]} and {asked[False]} that contradict each other in a turn", "keep one of them")
    if True in asked and not is_answer:
        where = "a turn of its prompt" if role == "assistant" else f"a {role} turn"
        raise RowError(
            f"has {asked[True]} that asks to learn {where}, and only answers are learnt",
            "write what is to be learnt as completion, and all in front of it as prompt (a list of turns)",
        )
    return is_answer and False not in asked


def refuse_others(mapping: dict[str, Any], kind: str, known: Iterable[str]) -> None:
    """Refuse every key that means something and is not known.

    Raises:
        RowError: With the first.
    """
    for key, value in mapping.items():
        if key not in known and value not in NOTHING:
            raise lost(key, kind, tuple(known))


def lost(key: str, kind: str, known: tuple[str, ...]) -> RowError:
    """Say that a key's meaning would be lost."""
    meant = near(key, known)
    fix = f"write it as text in the turns, or take {shown_key(key)} out"
    return RowError(
        f"has {shown_key(key)} in its {kind}, which would be lost",
        f"did you mean {meant}? If not, {fix}" if meant else fix,
    )


def _flag(key: str, value: Any, kind: str) -> bool:
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise RowError(f"has {key} in its {kind} that is neither 0 nor 1, true nor false", _SAY_IT)
    return bool(value)


def _unclear(key: str, kind: str) -> RowError:
    return RowError(f"has {key} in its {kind}, which programs read in different ways", _SAY_IT)
