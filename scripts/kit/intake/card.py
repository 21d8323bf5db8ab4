"""The data card: where the rows came from, how many were kept or dropped and why, what is in the files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kit.audit.histogram import bars
from kit.cli.screen import one_line
from kit.data.remarks import names_of
from kit.intake.findings import rows
from kit.intake.ledger import DROPPED, TRAIN, VAL

if TYPE_CHECKING:
    from pathlib import Path

    from kit.audit.measures import TokenCounts
    from kit.intake.collect import Collected

SCHEMA_VERSION = 1
_LABELS_SHOWN = 20
SIDES = {TRAIN: "train", VAL: "val"}
REPEATS = {"exact": "repeats an earlier row exactly", "near": "nearly repeats an earlier row"}


def steps_of(collected: Collected) -> dict[str, Any]:
    """Count rows step by step; rows read and added equal rows kept and dropped."""
    ledger = collected.ledger
    sides = {side: sum(ledger.counts("source", side).values()) for side in (TRAIN, VAL)}
    repeated = {REPEATS[str(reason)]: count for reason, count in ledger.counts("reason", DROPPED).items()}
    return {
        "read": collected.rows,
        **({"added_by_split_turns": collected.added} if collected.added else {}),
        "dropped": {**dict(sorted(collected.reasons.items())), **repeated},
        "train": sides[TRAIN],
        "val": sides[VAL],
    }


def build_card(
    collected: Collected, options: dict[str, Any], measures: dict[str, TokenCounts], files: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Build the card, reproducible: without times and local paths."""
    ledger = collected.ledger
    kept = [ledger.counts("source", side) for side in (TRAIN, VAL)]
    repeats = ledger.counts("source", DROPPED)
    labels = {name: dict(sorted(ledger.counts("label", side).items())) for side, name in SIDES.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "options": options,
        "sources": [
            {
                "name": read.stream.source.name,
                "format": read.stream.format,
                "sha256": read.stream.sha256,
                "rows": read.stream.rows,
                "not_trainable": read.bad,
                "repeats": repeats.get(number, 0),
                "train": kept[0].get(number, 0),
                "val": kept[1].get(number, 0),
            }
            for number, read in enumerate(collected.reads)
        ],
        "steps": steps_of(collected),
        "shapes": dict(sorted(collected.shapes.items())),
        "answers_trimmed_in_rows": collected.trimmed,
        "columns_left_behind": dict(sorted(collected.unused.items())),
        "labels": labels if any(label for side in labels.values() for label in side) else {},
        "likely_secrets": dict(sorted(collected.secrets.items())),
        "tokens": {name: found.as_mapping() for name, found in measures.items()} or None,
        "files": files,
    }


def write_card(folder: Path, card: dict[str, Any], measures: dict[str, TokenCounts]) -> None:
    """Write the card as JSON and as Markdown."""
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (folder / "data_card.json").write_text(text, encoding="utf-8", errors="backslashreplace")
    lines = ["# Data card", "", "```", *summary(card, measures), "```", ""]
    (folder / "data_card.md").write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")


def summary(card: dict[str, Any], measures: dict[str, TokenCounts]) -> list[str]:
    """Return the card as lines of text."""
    steps = card["steps"]
    lines = [f"{source['rows']:>10,}  rows of {source['name']} ({source['format']})" for source in card["sources"]]
    if added := steps.get("added_by_split_turns"):
        lines.append(f"{added:>+10,}  rows, one per further answer (--split-turns)")
    lines += [f"{-count:>10,}  {reason}" for reason, count in steps["dropped"].items()]
    lines += [f"{steps['train']:>10,}  rows to train on: train.jsonl", f"{steps['val']:>10,}  rows held out: val.jsonl"]
    if card["answers_trimmed_in_rows"]:
        lines.append(f"{card['answers_trimmed_in_rows']:>10,}  rows lost answers before their first question")
    if card["columns_left_behind"]:
        lines.append(f"{'':>10}  ignored columns: {names_of(card['columns_left_behind'])}")
    labels = sorted({*card["labels"].get("train", {}), *card["labels"].get("val", {})})
    for label in labels[:_LABELS_SHOWN]:
        counts = [card["labels"][side].get(label, 0) for side in ("train", "val")]
        lines.append(f"{'':>10}  {label}: {counts[0]:,} to train on, {counts[1]:,} held out")
    if len(labels) > _LABELS_SHOWN:
        lines.append(f"{'':>10}  and {len(labels) - _LABELS_SHOWN:,} more labels, see data_card.json")
    for name, found in measures.items():
        lines += ["", *chart(found, f"tokens per row, {name}")]
    return [one_line(line) for line in lines]


def chart(found: TokenCounts, title: str) -> list[str]:
    """Return the histogram of one side's lengths, with totals."""
    if not found.rows:
        return []
    share = found.trainable_tokens / found.tokens
    lines = [title, *bars(found.histogram, found.max_seq_length)]
    lines.append(
        f"{found.tokens:,} tokens at max_seq_length {found.max_seq_length}, {share:.0%} of them trainable; "
        f"{rows(found.truncated_rows)} truncated by {found.truncated_tokens:,} tokens"
    )
    lines.append(
        f"unpacked rows fill {found.packing.padded:.0%} of max_seq_length; "
        f"packed into {rows(found.packing.sequences, 'sequence')}, {found.packing.packed:.0%}"
    )
    return lines
