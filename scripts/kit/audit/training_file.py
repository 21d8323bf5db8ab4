"""Audit a training file: lengths, duplicates and likely secrets."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kit.audit.histogram import quantile
from kit.audit.packing import packing
from kit.audit.secrets import find_secrets
from kit.cli.findings import Finding, ok, warning
from kit.data.conversations import LineNumbers, RowProblem, read_lines, read_row
from kit.data.dataset import in_chunks
from kit.data.pool import in_order, processes_for
from kit.files.regular_files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from kit.data.dataset import EncodedFile, Lines

_DIGEST_BYTES = 8  # a collision among a million rows has a chance of one in 30 million


def audit_training_file(file: EncodedFile, max_seq_length: int) -> list[Finding]:
    """Report lengths and packing, duplicate rows and likely secrets.

    Raises:
        OSError: The file cannot be read again.
    """
    return [*_lengths(file, max_seq_length), *_texts(file.path)]


def lengths_of(file: EncodedFile) -> dict[int, int]:
    """Count a file's rows by tokens before truncation."""
    return dict(Counter(file.rows.full_lengths.tolist()))


def _lengths(file: EncodedFile, max_seq_length: int) -> list[Finding]:
    lengths = lengths_of(file)
    if not lengths:
        return []
    packed = packing(lengths, max_seq_length)
    median, p95 = quantile(lengths, 0.5), quantile(lengths, 0.95)
    return [
        ok(
            "data.lengths",
            f"median {median:,} tokens, p95 {p95:,}; unpacked rows fill {packed.padded:.0%} of max_seq_length "
            f"({max_seq_length}), packed rows {packed.packed:.0%}",
            where=str(file.path),
        )
    ]


@dataclass
class _Seen:
    """What some lines contain."""

    lines: array[int] = field(default_factory=lambda: array("q"))
    digests: bytearray = field(default_factory=bytearray)
    secrets: list[tuple[int, str, str]] = field(default_factory=list)


def _look(lines: Lines) -> _Seen:
    seen = _Seen()
    for item in lines:
        row = read_row(item)
        if isinstance(row, RowProblem):
            continue
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for message in row.messages:
            digest.update("\0".join((message.role, "01"[message.is_answer], *message.texts, "")).encode())
            seen.secrets += [(row.line, *secret) for text in message.texts for secret in find_secrets(text)]
        seen.lines.append(row.line)
        seen.digests += digest.digest()
    return seen


def _texts(path: Path) -> list[Finding]:
    lines, digests = array("q"), bytearray()
    secrets: dict[str, LineNumbers] = {}
    shown: dict[str, str] = {}
    with open_regular(path) as file:
        for seen in in_order(_look, in_chunks(read_lines(file)), processes_for()):
            lines.extend(seen.lines)
            digests += seen.digests
            for line, kind, masked in seen.secrets:
                secrets.setdefault(kind, LineNumbers()).add(line)
                shown.setdefault(kind, masked)
    findings = _duplicates(path, lines, digests)
    for kind, places in sorted(secrets.items()):
        findings.append(
            warning(
                "data.secrets",
                f"{places} contains a likely secret ({kind}: {shown[kind]})",
                "remove it before training: a model repeats what it was trained on",
                f"{path}:{places.first[0]}",
            )
        )
    return findings


def _duplicates(path: Path, lines: array[int], digests: bytearray) -> list[Finding]:
    keys = np.frombuffer(digests, "<u8")
    order = np.argsort(keys, kind="stable")  # the first of equal rows stays first
    repeats = np.sort(order[1:][keys[order[1:]] == keys[order[:-1]]])
    if not len(repeats):
        return [ok("data.duplicates", "no row repeats another", str(path))]
    places = LineNumbers()
    places.extend(lines[position] for position in repeats.tolist())
    return [
        warning(
            "data.duplicates",
            f"{places} repeats an earlier row exactly",
            f"make data INPUT={path} ARGS='--dedupe exact --out data/unique'",
            f"{path}:{places.first[0]}",
        )
    ]
