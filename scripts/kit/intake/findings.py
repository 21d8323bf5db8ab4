"""Findings on the collected rows: lengths, truncation, packing, duplicates, leakage, what the template changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, ok, skipped, warning
from kit.data.remarks import REMARKS, Mark, end_findings

if TYPE_CHECKING:
    from kit.audit.measures import TokenCounts
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.intake.collect import Collected


def token_findings(collected: Collected, measures: TokenCounts, tokenizer: ChatTokenizer) -> list[Finding]:
    """Report lengths, packing, truncation, and what the template changes in the rows."""
    limit = measures.max_seq_length
    if not measures.rows:
        return []
    share = measures.trainable_tokens / measures.tokens
    findings = [
        ok(
            "data.tokens",
            f"{rows(measures.rows)}, {measures.tokens:,} tokens at max_seq_length {limit}, "
            f"{measures.trainable_tokens:,} of them trainable ({share:.0%}); longest row {measures.longest:,}",
        ),
        ok(
            "data.packing",
            f"unpacked rows fill {measures.packing.padded:.0%} of max_seq_length; "
            f"packed into {rows(measures.packing.sequences, 'sequence')} of {limit}, {measures.packing.packed:.0%}",
        ),
    ]
    if measures.truncated_rows:
        where, places = _named(collected, "tokens > ?", limit)
        findings.append(
            warning(
                "data.truncated",
                f"{places} exceeds {limit} tokens: {measures.truncated_tokens:,} tokens will be cut; "
                f"longest row {measures.longest:,}",
                "raise training.max_seq_length, shorten the rows, or drop them: --long-rows drop",
                where,
            )
        )
    for remark in REMARKS:
        if collected.ledger.matching("marks & ?", remark.mark)[0]:
            where, places = _named(collected, "marks & ?", remark.mark)
            findings.append(remark.finding(places, where))
    findings += end_findings(tokenizer, some_end=collected.ledger.matching("marks & ?", Mark.ENDS)[0] > 0)
    return findings


def duplicate_findings(collected: Collected) -> list[Finding]:
    """Report rows that repeat an earlier one exactly."""
    count, first = collected.ledger.duplicates()
    if not count:
        return [ok("data.duplicates", "no row repeats another")]
    pairs = ", ".join(f"{collected.place(number)} = {collected.place(earlier)}" for number, earlier in first[:3])
    return [
        warning(
            "data.duplicates",
            f"{rows(count)} repeat{'s' if count == 1 else ''} an earlier row exactly "
            f"({pairs}{', …' if count > 3 else ''})",  # noqa: PLR2004
            "make data … ARGS='--dedupe exact'",
            collected.place(first[0][0]),
        )
    ]


def leakage_findings(collected: Collected) -> list[Finding]:
    """Report held-out rows that are also trained on: they measure memory, not learning."""
    held_out = sum(collected.ledger.counts("source", 1).values())
    if not held_out or not collected.ledger.counts("source", 0):
        what = "leakage not checked: it needs files named as training and as validation data"
        return [skipped("data.leakage", what, "name both: train.jsonl and val.jsonl")]
    places = collected.ledger.leaked()
    if not places:
        return [ok("data.leakage", f"none of the {held_out:,} validation rows is in the training data")]
    return [
        warning(
            "data.leakage",
            f"{places.count:,} of {held_out:,} validation rows are in the training data too "
            "(ignoring case, whitespace and Unicode forms)",
            "split them again: make data INPUT='…' keeps each conversation on one side",
            collected.place(places.first[0]),
        )
    ]


def rows(count: int, noun: str = "row") -> str:
    """Count something: ``1 row``, ``2,000 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _named(collected: Collected, condition: str, value: int) -> tuple[str, str]:
    """Return the first place, and a phrase that names all of them with their files."""
    count, numbers = collected.ledger.matching(condition, value)
    places = [collected.place(number) for number in numbers]
    if count == 1:
        return places[0], "the row"
    return places[0], f"each of {count:,} rows ({', '.join(places[:4])}{', …' if count > 4 else ''})"  # noqa: PLR2004
