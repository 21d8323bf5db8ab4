"""Turn raw rows into training data: read, check every row, deduplicate, split, and account for every row.

Run as:
    python scripts/kit data rows.jsonl                        writes data/processed/{train,val}.jsonl and a card
    python scripts/kit data 'dumps/*.json.gz' more.csv --dedupe exact --on-bad-row drop
    python scripts/kit data faq.csv --map user=Question assistant=Answer
    python scripts/kit data hf:owner/name --split train --revision main
    zcat rows.gz | python scripts/kit data -
    python scripts/kit data data/processed --audit            only judge, write nothing

Exit codes: 0 fine or warnings only; 1 errors found, and nothing was written; 2 wrong use, an input that
cannot be read or a folder that cannot be written.
"""

from __future__ import annotations

import argparse
import shlex
import sqlite3
import sys
from pathlib import Path

from kit.audit.length_cache import DEFAULT as LENGTH_CACHE
from kit.cli.console import fail, paint, say
from kit.cli.findings import Finding, as_json, exit_code, has_errors, render, summary
from kit.cli.foreground import TerminatedError
from kit.cli.mistakes import WrongUseError
from kit.cli.redaction import discard_output
from kit.cli.screen import one_line
from kit.data.pool import WorkerDiedError
from kit.intake.card import chart
from kit.intake.card import summary as card_summary
from kit.intake.options import add_arguments, check, meter_of, options_of
from kit.intake.prepare import Prepared, audit, prepare
from kit.intake.publish import OccupiedError, check_free, check_written
from kit.intake.sources import find_sources

__all__ = ["add_arguments", "run"]
UNREADABLE = frozenset({"data.missing", "data.unreadable", "data.input"})


def run(options: argparse.Namespace) -> int:
    try:
        return _run(options)
    except KeyboardInterrupt:
        say("\nstopped: nothing was written")
        return 130
    except TerminatedError:
        say("\nterminated: nothing was written")
        raise
    except (OccupiedError, WorkerDiedError, sqlite3.Error, OSError) as exc:
        return fail(*_explained(exc, options.out))


def _explained(exc: Exception, out: Path) -> tuple[str, str]:
    if isinstance(exc, OccupiedError):
        return f"{out}: {exc}", exc.fix
    if isinstance(exc, WorkerDiedError):
        return f"{exc}: nothing was written", "use --processes 1, or free some memory"
    reason = exc.strerror or exc if isinstance(exc, OSError) else exc
    return f"{out}: cannot be written ({reason})", "free some space, or name another folder: --out FOLDER"


def _run(options: argparse.Namespace) -> int:
    if not options.input or not all(options.input):  # "" is a variable that is not set, not the folder one is in
        raise WrongUseError("no input is named; make data INPUT=rows.jsonl")
    check(options)
    if not options.audit:
        check_free(options.out, overwrite=options.overwrite)
        check_written(options.out)
    sources, findings = find_sources(options.input, exclude=None if options.audit else options.out)
    if any(source.kind == "stdin" for source in sources) and sys.stdin.isatty():
        say("reading rows from the terminal; Ctrl-D ends them", "dim")
    meter, said = meter_of(options)
    findings += said
    wanted = options_of(options, meter, LENGTH_CACHE)
    outcome = Prepared([], {}, {}, is_written=False)
    if sources and not has_errors(findings):
        outcome = audit(sources, wanted) if options.audit else prepare(sources, wanted)
    findings += outcome.findings
    code = 2 if any(finding.id in UNREADABLE for finding in findings) else exit_code(findings)
    try:
        _show(options, outcome, findings, code)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        discard_output(sys.stdout)
    return code


def _show(options: argparse.Namespace, outcome: Prepared, findings: list[Finding], code: int) -> None:
    following = _next_command(options, code, findings)
    if options.json:
        facts = {"written": str(options.out) if outcome.is_written else None, "next_command": following}
        print(as_json(findings, card=outcome.card, **facts))
        return
    render(findings)
    charts = [chart(found, f"tokens per row, {name}") for name, found in outcome.measures.items() if found.rows]
    lines = [line for drawn in charts for line in ("", *drawn)]
    if outcome.is_written:
        lines = ["", *card_summary(outcome.card, outcome.measures)]
    if lines:
        print("\n".join(lines))
    if outcome.is_written:
        verdict = f"written: {one_line(options.out)}"
    elif options.audit:
        verdict = "fit to train on" if code == 0 else "not fit to train on"
    else:
        verdict = "nothing was written"
    painted = paint(verdict, "green" if code == 0 else "red", "bold", stream=sys.stdout)
    print(f"\n{painted} ({summary(findings)})\nnext: {one_line(following)}")


def _next_command(options: argparse.Namespace, code: int, findings: list[Finding]) -> str:
    inputs = " ".join(map(shlex.quote, options.input))
    if code:
        bad_rows = any(finding.id == "data.row" and finding.severity == "error" for finding in findings)
        also = ', or leave bad rows out: ARGS="--on-bad-row drop"' if bad_rows and not options.audit else ""
        return f"fix the errors above{also}"
    if options.audit:
        return "make validate"
    val = options.out / "val.jsonl"
    held_out = f"data.val_file={val}" if val.exists() else "data.val_file=null"
    config = f"CONFIG={options.config} " if options.config else ""
    return f'make validate {config}SET="data.train_file={options.out}/train.jsonl {held_out}"' if inputs else ""
