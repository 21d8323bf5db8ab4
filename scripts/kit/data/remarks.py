"""Remarks about rows that are trained on, shared by training and preparation."""

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
    """What was noticed of a row; kept as a number beside its length."""

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
        " has a system message, which this model's template cannot carry: "
        "it is put in front of the first user turn, as is usual for this model",
        "",
    ),
    Remark(
        Mark.TURN_MARKERS,
        "data.turn_markers",
        " has in its text what the template writes between turns, as plain text: "
        "the model cannot tell where a turn begins or ends",
        "rephrase or remove it; the chat template writes these marks",
    ),
    Remark(
        Mark.CUT,
        "data.cut_at_answer",
        ": the prompt's last characters would be other tokens than where it ends, such as one that the answer's first "
        "character shares; they are tokenised apart, as the model is asked",
        "nothing to do; a template that writes a blank or a special token in front of answers never needs it",
    ),
    Remark(
        Mark.CHANGED,
        "data.answer_changed",
        " has an answer that the chat template leaves out or rewrites in part: the model learns what the template made",
        "write the answer as the template does, or use a chat_template.jinja that writes it whole",
    ),
    Remark(
        Mark.TRIMMED,
        "data.answer_trimmed",
        " has an answer with blanks or line breaks at its ends, which the chat template strips: "
        "the model does not learn them",
        "nothing to do, unless they matter: then use a chat_template.jinja that keeps them",
    ),
    Remark(
        Mark.THOUGHTS,
        "data.thoughts_left_out",
        " has thoughts (reasoning_content, reasoning, thinking) in a turn that is not learnt, and the chat template "
        "leaves them out there, as it does when the model is asked",
        "nothing to do; --split-turns makes a row of each answer, learnt with its thoughts",
    ),
)


def add_names(names: Counter[str], more: Mapping[str, int]) -> None:
    """Count more unused keys, in bounded memory: each row may have others."""
    for name, count in more.items():
        short = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        names[short if short in names or len(names) < _MOST_NAMES else "others"] += count


def names_of(names: Mapping[str, int]) -> str:
    """List unused keys, each with its rows."""
    listed = [f"{shown_key(name)} ({count:,})" for name, count in list(names.items())[:_NAMES_SHOWN]]
    more = f" and {len(names) - len(listed):,} more" if len(names) > len(listed) else ""
    return ", ".join(listed) + more


def columns_finding(names: Mapping[str, int], where: str = "") -> Finding:
    """Name the unused keys of rows."""
    return warning(
        "data.columns",
        f"unused keys, with the rows that have each: {names_of(names)}",
        "nothing to do, unless the model is to read or learn one: then write it into the turns",
        where,
    )


def end_findings(tokenizer: ChatTokenizer, *, some_end: bool, where: str = "") -> list[Finding]:
    """Say where an answer's end is not what the model, or other programs, need; ``some_end``: an answer ends at all."""
    eos, end = tokenizer.special_tokens["eos_token"], tokenizer.ends.turn_end
    if not some_end:
        return [
            warning(
                "data.no_end",
                "nothing ends an answer: the chat template writes no special token behind it, neither the eos_token, "
                f"{eos!r}, nor another, so the model will not learn to stop",
                "use a chat template that writes the eos_token behind each answer",
                where,
            )
        ]
    if tokenizer.ends.is_declared:
        return []
    return [
        warning(
            "data.end_not_declared",
            f"the chat template ends an answer with {end!r}, which is neither the eos_token, {eos!r}, nor an "
            "eos_token_id of generation_config.json: the kit stops there, other programs will not",
            "add its id to eos_token_id in the base's generation_config.json, as make merge does in what it writes",
            where,
        )
    ]
