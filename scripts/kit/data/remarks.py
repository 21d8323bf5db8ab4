"""Warnings about rows that can be trained on, shared by training and preparation."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from kit.cli.findings import Finding, warning
from kit.data.row_values import shown_key

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from kit.data.chat_tokenizer import ChatTokenizer


_NAMES_SHOWN, _MOST_NAMES, _LONGEST_NAME = 12, 1000, 100


class Mark(enum.IntFlag):
    """What was noticed about a row; stored as a number beside its length."""

    ENDS = 1
    MERGED_SYSTEM = 2
    TURN_MARKERS = 4
    CUT = 8
    CHANGED = 16
    TRIMMED = 32
    THOUGHTS = 64


class Remark(NamedTuple):
    """One kind of remark: ``says`` follows ``the row at line 3`` or ``each of 12 rows``."""

    mark: Mark
    id: str
    says: str
    fix: str

    def finding(self, places: str, where: str) -> Finding:
        """Return the warning for some rows."""
        return warning(self.id, f"{places}{self.says}", self.fix, where)


REMARKS = (
    Remark(
        Mark.MERGED_SYSTEM,
        "data.system_merged",
        " has a system message, which this model's template does not support: "
        "it is merged into the first user turn, as usual for this model",
        "",
    ),
    Remark(
        Mark.TURN_MARKERS,
        "data.turn_markers",
        " contains the template's turn markers as plain text: the model cannot tell where a turn begins or ends",
        "rewrite or remove them; the chat template writes the markers itself",
    ),
    Remark(
        Mark.CUT,
        "data.cut_at_answer",
        ": the answer would change the prompt's last tokens, for instance by one token that spans both; "
        "the two are tokenised separately, as at inference",
        "nothing to do; a template that writes a space or a special token before answers never needs it",
    ),
    Remark(
        Mark.CHANGED,
        "data.answer_changed",
        " has an answer that the chat template partly drops or rewrites: the model trains on the template's version",
        "write the answer as the template does, or use a chat_template.jinja that keeps it whole",
    ),
    Remark(
        Mark.TRIMMED,
        "data.answer_trimmed",
        " has leading or trailing whitespace in an answer, which the chat template strips: the model does not learn it",
        "nothing to do; if the whitespace matters, use a chat_template.jinja that keeps it",
    ),
    Remark(
        Mark.THOUGHTS,
        "data.thoughts_left_out",
        " has thoughts (reasoning_content, reasoning, thinking) in a turn without loss, where the chat template drops "
        "them, as at inference",
        "nothing to do; --split-turns makes one row per answer, trained on with its thoughts",
    ),
)


def add_names(names: Counter[str], more: Mapping[str, int]) -> None:
    """Count more ignored keys, in bounded memory: every row may have new ones."""
    for name, count in more.items():
        short = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        names[short if short in names or len(names) < _MOST_NAMES else "others"] += count


def names_of(names: Mapping[str, int]) -> str:
    """List ignored keys, each with its number of rows."""
    listed = [f"{shown_key(name)} ({count:,})" for name, count in list(names.items())[:_NAMES_SHOWN]]
    more = f" and {len(names) - len(listed):,} more" if len(names) > len(listed) else ""
    return ", ".join(listed) + more


def columns_finding(names: Mapping[str, int], where: str = "") -> Finding:
    """Report the ignored keys."""
    return warning(
        "data.columns",
        f"ignored keys (rows with each): {names_of(names)}",
        "nothing to do, unless the model needs them: then write them into the turns",
        where,
    )


def end_findings(tokenizer: ChatTokenizer, *, some_end: bool, where: str = "") -> list[Finding]:
    """Warn where no answer ends with a special token (``some_end``), or with one that other programs do not stop at."""
    eos, end = tokenizer.special_tokens["eos_token"], tokenizer.ends.turn_end
    if not some_end:
        return [
            warning(
                "data.no_end",
                f"no answer ends with a special token: the chat template writes neither the eos_token ({eos!r}) nor "
                "another after it, so the model will not learn to stop",
                "use a chat template that writes the eos_token after each answer",
                where,
            )
        ]
    if tokenizer.ends.is_declared:
        return []
    return [
        warning(
            "data.end_not_declared",
            f"the chat template ends answers with {end!r}, which is neither the eos_token ({eos!r}) nor an "
            "eos_token_id of generation_config.json: the kit stops there, other programs will not",
            "add its id to eos_token_id in the base's generation_config.json, as make merge does for a merged model",
            where,
        )
    ]
