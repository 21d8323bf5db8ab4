"""From sources to a folder of prepared data, or to an audit that writes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.audit.measures import measure
from kit.cli.findings import Finding, has_errors, ok
from kit.data.remarks import columns_finding
from kit.intake.card import REPEATS, SIDES, build_card, write_card
from kit.intake.collect import Collected, collect, reject, secret_findings
from kit.intake.findings import duplicate_findings, leakage_findings, token_findings
from kit.intake.ledger import TRAIN, VAL, Ledger
from kit.intake.publish import LEDGER, StagedFolder
from kit.intake.split import join_groups, split_rows

if TYPE_CHECKING:
    from kit.audit.measures import TokenCounts
    from kit.intake.options import PrepareOptions
    from kit.intake.sources import Source

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Prepared:
    """The result; ``measures`` are by side, ``all`` in an audit, empty if tokens were not counted."""

    findings: list[Finding]
    card: dict[str, Any]
    measures: dict[str, TokenCounts]
    is_written: bool


def audit(sources: list[Source], wanted: PrepareOptions) -> Prepared:
    """Check every row of every source; write nothing.

    Raises:
        OSError: The temporary folder cannot be written.
        WorkerDiedError: A worker process was killed.
    """
    with tempfile.TemporaryDirectory(prefix="kit-audit-") as folder, contextlib.closing(Ledger(Path(folder))) as ledger:
        collected, findings = collect(sources, ledger, wanted)
        measures = _measures(ledger, wanted, {"all": None})
        findings += collected.problem_findings() + _judge(collected, wanted, measures.get("all"))
        findings += [columns_finding(collected.unused)] if collected.unused else []
        findings += duplicate_findings(collected) + leakage_findings(collected)
        card = build_card(collected, wanted.said, measures, {})
        return Prepared(findings, card, measures, is_written=False)


def prepare(sources: list[Source], wanted: PrepareOptions) -> Prepared:
    """Read, check, deduplicate, split and write; the folder appears whole or not at all.

    Raises:
        OccupiedError: Another command is writing the folder, or has written it meanwhile.
        OSError: The folder cannot be written.
        sqlite3.Error: The same, from the ledger.
        WorkerDiedError: A worker process was killed.
    """
    with StagedFolder(wanted.out, overwrite=wanted.overwrite) as draft:
        ledger_folder, files = draft.path / LEDGER, draft.path
        ledger_folder.mkdir()
        with (
            contextlib.closing(Ledger(ledger_folder)) as ledger,
            (files / "rejects.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as rejects,
        ):
            collected, findings = collect(sources, ledger, wanted, rejects)
            bad = collected.problem_findings()
            cut_off = any(read.stream.broken for read in collected.reads)
            if wanted.drop_bad_rows and not cut_off and ledger.count:
                bad = [_dropped(finding) for finding in bad]
            findings += bad
            if wanted.job.split_turns:  # before rows are dropped: two conversations may begin with the same row
                join_groups(ledger)
            if wanted.dedupe == "exact":
                ledger.drop_duplicates()
            split_rows(ledger, wanted.split)
            for source, line, reason, first_source, first_line in ledger.dropped():
                first = collected.reads[first_source].place(first_line)
                name = collected.reads[source].stream.source.name
                rejects.write(reject(name, line, f"{REPEATS[reason]}: {first}", "--dedupe none keeps it"))
            measures = _measures(ledger, wanted, {name: side for side, name in SIDES.items()})
            findings += _judge(collected, wanted, _measures(ledger, wanted, {"all": None}).get("all"))
            if wanted.dedupe == "none":
                findings += duplicate_findings(collected)
            written = {} if has_errors(findings) else _write_sides(ledger, files)
            rejects.flush()
            card = build_card(collected, wanted.said, measures, written)
        if has_errors(findings):
            return Prepared(findings, card, measures, is_written=False)
        for path in (*ledger_folder.iterdir(), ledger_folder):
            path.rmdir() if path.is_dir() else path.unlink()
        if not (files / "rejects.jsonl").stat().st_size:
            (files / "rejects.jsonl").unlink()
        write_card(files, card, measures)
        draft.publish()
        return Prepared(findings, card, measures, is_written=True)


def _judge(collected: Collected, wanted: PrepareOptions, measures: TokenCounts | None) -> list[Finding]:
    findings: list[Finding] = []
    if measures and wanted.job.tokenizer:
        findings = token_findings(collected, measures, wanted.job.tokenizer)
    return findings + (secret_findings(collected) or [ok("data.secrets", "no likely secrets")])


def _measures(ledger: Ledger, wanted: PrepareOptions, sides: dict[str, int | None]) -> dict[str, TokenCounts]:
    if wanted.job.tokenizer is None:
        return {}
    limit = wanted.job.max_seq_length
    return {name: measure(ledger.lengths(side), ledger.trained(side), limit) for name, side in sides.items()}


def _dropped(finding: Finding) -> Finding:
    """Turn the error on a bad row into a warning that it was dropped."""
    if finding.id != "data.row":
        return finding
    return Finding(finding.id, "warning", f"{finding.message}: dropped", finding.fix, finding.where)


def _write_sides(ledger: Ledger, folder: Path) -> dict[str, dict[str, Any]]:
    """Write a file for each side that has rows."""
    counts = {side: sum(ledger.counts("source", side).values()) for side in (TRAIN, VAL)}
    paths = {side: folder / f"{name}.jsonl" for side, name in SIDES.items() if counts[side]}
    hashes = {side: hashlib.sha256() for side in paths}
    with contextlib.ExitStack() as stack:
        files = {side: stack.enter_context(path.open("wb", buffering=_PIECE_BYTES)) for side, path in paths.items()}
        for side, text in ledger.texts():
            files[side].write(text)
            hashes[side].update(text)
    return {
        path.name: {"rows": counts[side], "bytes": path.stat().st_size, "sha256": hashes[side].hexdigest()}
        for side, path in paths.items()
    }
