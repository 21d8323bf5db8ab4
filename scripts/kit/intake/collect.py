"""Read every source into the ledger: each row is entered or reported as a problem, and all are counted."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from kit.cli.findings import Finding, error, warning
from kit.data.conversations import Problems, RowProblem
from kit.data.pool import in_order, processes_for
from kit.data.remarks import add_names
from kit.intake.chunks import in_chunks
from kit.intake.formats import Stream
from kit.intake.ledger import TRAIN, VAL, Ledger
from kit.intake.near import NearIndex
from kit.intake.work import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from kit.intake.chunks import Chunk
    from kit.intake.options import PrepareOptions
    from kit.intake.sources import Source
    from kit.intake.work import Batch

_HELD_OUT_NAMES = frozenset({"val", "valid", "validation", "dev", "eval", "test"})


@dataclass
class Read:
    """One source, its numbers of good and bad rows, and the problems by kind."""

    stream: Stream
    problems: Problems = field(default_factory=Problems)
    bad: int = 0

    def place(self, line: int) -> str:
        """Return the place of one of its rows: ``name:line``."""
        return f"{self.stream.source.name}:{line}"


@dataclass
class Collected:
    """All sources, read, with the sums of their batches (see ``Batch``).

    Attributes:
        secret_places: The first of each kind: (place, masked value).
        reasons: Bad rows by reason.
    """

    ledger: Ledger
    reads: list[Read] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    trimmed: int = 0
    added: int = 0
    secrets: Counter[str] = field(default_factory=Counter)
    secret_places: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """Rows read, good and bad."""
        return sum(read.stream.rows for read in self.reads)

    def place(self, number: int) -> str:
        """Return the place of a row of the ledger: ``name:line``."""
        source, line = self.ledger.where(number)
        return self.reads[source].place(line)

    def problem_findings(self) -> list[Finding]:
        """Return the findings on bad rows, broken files and empty ones."""
        findings: list[Finding] = []
        for read in self.reads:
            name = read.stream.source.name
            findings += read.problems.findings(name)
            if read.stream.broken:
                broken = read.stream.broken
                findings.append(error("data.file", f"the file {broken}", broken.fix, f"{name}:{broken.line}"))
            elif not read.stream.rows:
                findings.append(error("data.empty", "contains no rows", "write one row per line, or omit it", name))
        return findings


def collect(
    sources: list[Source], ledger: Ledger, wanted: PrepareOptions, rejects: TextIO | None = None
) -> tuple[Collected, list[Finding]]:
    """Read every source; return the rows, and findings on the sources that could not be read at all.

    Args:
        sources: Each is read to its end or its first error.
        ledger: Takes the good rows.
        wanted: How files and rows are read.
        rejects: Takes one line of JSON per bad row; None for an audit, which counts files named as validation data as
            held out and keeps no text.
    """
    is_audit = rejects is None
    collected = Collected(ledger)
    unreadable: list[Finding] = []
    near = NearIndex(wanted.near_threshold) if wanted.dedupe == "near" and not is_audit else None
    reading = (wanted.hub_split, wanted.revision, wanted.format)
    collected.reads = [Read(Stream(source, *reading)) for source in sources]
    with _progress(sources) as bar:
        for read in collected.reads:
            read.stream.progress = bar.update
        chunks = _chunks(collected.reads, unreadable)
        for batch in in_order(Worker(wanted.job), chunks, processes_for(wanted.processes)):
            read = collected.reads[batch.source]
            same_as = _near_duplicates(batch, near, ledger.count)
            side = VAL if is_audit and is_held_out(read.stream.source) else TRAIN
            ledger.add(batch.source, batch.rows, side=side, same_as=same_as, keep_text=not is_audit)
            _count(collected, read, batch, rejects)
            bar.set_postfix_str(f"{ledger.count:,} rows", refresh=False)
    return collected, unreadable


def is_held_out(source: Source) -> bool:
    """Tell by its name whether a file contains validation data."""
    return Path(source.name).name.split(".")[0].lower() in _HELD_OUT_NAMES


def _chunks(reads: list[Read], unreadable: list[Finding]) -> Iterator[Chunk]:
    for number, read in enumerate(reads):
        try:
            yield from in_chunks(number, read.stream)
        except OSError as exc:
            fix = "make it readable, or omit it"
            reason = exc.strerror or str(exc)
            unreadable.append(error("data.unreadable", f"cannot be read ({reason})", fix, read.stream.source.name))


def _near_duplicates(batch: Batch, near: NearIndex | None, before: int) -> list[int | None]:
    if near is None:
        return []
    return [near.first_like(before + at, row.signature) for at, row in enumerate(batch.rows, start=1)]


def _count(collected: Collected, read: Read, batch: Batch, rejects: TextIO | None) -> None:
    collected.shapes += batch.shapes
    add_names(collected.unused, batch.unused)
    collected.trimmed += batch.trimmed
    collected.added += batch.added
    for problem in batch.problems:
        read.bad += 1
        read.problems.add(problem)
        collected.reasons[_reason(collected.reasons, problem)] += 1
        if rejects:
            rejects.write(reject(read.stream.source.name, problem.line, problem.message, problem.fix))
    for line, kind, masked in batch.secrets:
        collected.secrets[kind] += 1
        places = collected.secret_places[kind]
        if len(places) < 4:  # noqa: PLR2004 - as many as a finding names
            places.append((read.place(line), masked))


def _reason(reasons: Counter[str], problem: RowProblem) -> str:
    """Return the reason to count a problem under: after a hundred kinds, "for other reasons"."""
    return problem.message if problem.message in reasons or len(reasons) < 100 else "for other reasons"  # noqa: PLR2004


def reject(file: str, line: int, reason: str, fix: str) -> str:
    """Write one entry of the rejects file."""
    return json.dumps({"file": file, "line": line, "reason": reason, "fix": fix}, ensure_ascii=False) + "\n"


def _progress(sources: list[Source]) -> Any:
    """Make a progress bar on a terminal, with the time left if all sources have a size."""
    sizes = [Path(source.path).stat().st_size if source.kind == "file" and source.path else None for source in sources]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    is_bytes = not any(source.kind == "hub" for source in sources)
    return tqdm(
        total=total,
        unit="B" if is_bytes else "row",
        unit_scale=True,
        desc="reading",
        disable=not sys.stderr.isatty(),
        leave=False,
    )


def secret_findings(collected: Collected) -> list[Finding]:
    """Return one finding per kind of likely secret, with its first places and masked values."""
    findings = []
    fix = "remove them before training: a model repeats what it was trained on"
    for kind, count in sorted(collected.secrets.items()):
        places = collected.secret_places[kind]
        shown = ", ".join(f"{place} {masked}" for place, masked in places)
        more = f" and {count - len(places):,} more" if count > len(places) else ""
        message = f"{count:,} likely secret{'' if count == 1 else 's'} ({kind}): {shown}{more}"
        findings.append(warning("data.secrets", message, fix, places[0][0]))
    return findings
