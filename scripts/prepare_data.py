"""Turn raw rows into data to train on: read, check every row, make unique, split, and account for all of it.

Run as:
    python scripts/prepare_data.py rows.jsonl                        writes data/processed/{train,val}.jsonl and a card
    python scripts/prepare_data.py 'dumps/*.json.gz' more.csv --dedupe exact --on-bad-row drop
    python scripts/prepare_data.py faq.csv --map user=Question assistant=Answer
    python scripts/prepare_data.py hf:owner/name --split train --revision main
    zcat rows.gz | python scripts/prepare_data.py -
    python scripts/prepare_data.py data/processed --audit            judges and writes nothing

Exit codes: 0 fine or warnings only; 1 something has to be mended, and nothing was written; 2 wrong use, an input that
cannot be read or a folder that cannot be written.
"""

from __future__ import annotations

from kit.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import argparse
import shlex
import signal
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.audit.length_cache import DEFAULT as LENGTH_CACHE
from kit.config.error import ConfigError
from kit.config.resolve import resolve
from kit.console import fail, paint, say
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.pool import WorkerDiedError
from kit.data.shapes import Reading
from kit.findings import Finding, as_json, exit_code, has_errors, ok, render, skipped, summary
from kit.intake.card import chart
from kit.intake.card import summary as card_summary
from kit.intake.formats import FORMATS
from kit.intake.near import DEFAULT_THRESHOLD
from kit.intake.prepare import Outcome, Wanted, audit, prepare
from kit.intake.publish import OccupiedError, check_free
from kit.intake.sources import find_sources
from kit.intake.split import DEFAULT_SHARE, MOST_BY_DEFAULT, Split
from kit.intake.work import Job
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.model.files import ModelFileError
from kit.verdict import recommended

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

MAPPED = ("user", "assistant", "system", "messages")
UNREADABLE = frozenset({"data.missing", "data.unreadable", "data.input"})
TERMINATED = 128 + signal.SIGTERM


class _UsageError(Exception):
    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


def _parser() -> argparse.ArgumentParser:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("input", nargs="*", help="files, folders, globs, - for standard input, hf:NAME for a Hugging Face dataset")
    add("--audit", action="store_true", help="judge the rows and write nothing")
    add("--json", action="store_true", help="one JSON object on stdout")
    reading = parser.add_argument_group("what the rows are")
    add = reading.add_argument
    add(
        "--map", nargs="+", metavar="ROLE=COLUMN", default=[], help="columns of user, assistant, system; or of messages"
    )
    add("--text-prompt", metavar="TEXT", help="the user turn in front of rows that are plain text")
    add("--trim", action="store_true", help="leave out answers in front of the first question")
    add("--format", choices=FORMATS, help="what files are written as, where their names do not say it")
    add("--split", default="train", help="of a Hugging Face dataset (default: train)")
    add("--revision", help="of a Hugging Face dataset: branch, tag or commit")
    keeping = parser.add_argument_group("what is kept")
    add = keeping.add_argument
    add("--on-bad-row", choices=("stop", "drop"), default="stop", help="write nothing (default), or leave the row out")
    add("--dedupe", choices=("none", "exact", "near"), default="none", help="drop rows that repeat an earlier one")
    add("--near-threshold", type=float, default=DEFAULT_THRESHOLD, help=f"likeness (default: {DEFAULT_THRESHOLD})")
    add("--long-rows", choices=("keep", "drop"), default="keep", help="rows longer than the sequence length")
    holding = parser.add_argument_group("what is held out")
    add = holding.add_argument
    default = f"{DEFAULT_SHARE:.0%}, at most {MOST_BY_DEFAULT:,} rows"
    add("--val-share", type=float, help=f"share of the rows (default: {default})".replace("%", "%%"))
    add("--group", metavar="KEY", help="rows with the same KEY stay on one side")
    add("--stratify", metavar="KEY", help="each value of KEY has its share on both sides")
    add("--seed", type=int, default=42, help="another seed holds out other rows (default: 42)")
    measuring = parser.add_argument_group("what tokens are counted with")
    add = measuring.add_argument
    add("--config", type=Path, help="the configuration the data is for (default: the one that fits this machine)")
    add("--model", help="the base model, in place of the configuration's")
    add("--max-seq-length", type=int, help="the sequence length, in place of the configuration's")
    add("--no-cache", action="store_true", help="count every row again")
    add("--processes", type=int, help="how many may work at once (default: one a core)")
    writing = parser.add_argument_group("what is written")
    writing.add_argument(
        "--out", type=Path, default=Path("data/processed"), help="the folder (default: data/processed)"
    )
    writing.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare or audit, report, return the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(options)
    except KeyboardInterrupt:
        say("\nstopped: nothing was written")
        return 130
    except _TerminatedError:
        say("\nended from outside: nothing was written")
        return TERMINATED
    except (_UsageError, OccupiedError, WorkerDiedError, sqlite3.Error, OSError) as exc:
        return fail(*_explained(exc, options.out))
    finally:
        signal.signal(signal.SIGTERM, previous)


def _explained(exc: Exception, out: Path) -> tuple[str, str]:
    """Say what went wrong and what mends it."""
    if isinstance(exc, _UsageError):
        return str(exc), exc.fix
    if isinstance(exc, OccupiedError):
        return f"{out}: {exc}", exc.fix
    if isinstance(exc, WorkerDiedError):
        return f"{exc}: nothing was written", "--processes 1, or free some memory"
    reason = exc.strerror or exc if isinstance(exc, OSError) else exc
    return f"{out}: cannot be written ({reason})", "free some space, or --out another folder"


class _TerminatedError(BaseException):
    """SIGTERM: not to be caught by anything but the way out."""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise _TerminatedError


def _run(options: argparse.Namespace) -> int:
    if not options.input:
        raise _UsageError("there is nothing to read", "make data INPUT=rows.jsonl")
    _check(options)
    if not options.audit:
        check_free(options.out, overwrite=options.overwrite)
    sources, findings = find_sources(options.input, exclude=None if options.audit else options.out)
    if any(source.kind == "stdin" for source in sources) and sys.stdin.isatty():
        say("reading rows from the terminal; Ctrl-D ends them", "dim")
    tokenizer, max_seq_length, said = _tokenizer(options)
    findings += said
    wanted = _wanted(options, tokenizer, max_seq_length)
    outcome = Outcome([], {}, {}, is_written=False)
    if sources and not has_errors(findings):
        outcome = audit(sources, wanted) if options.audit else prepare(sources, wanted)
    findings += outcome.findings
    code = 2 if any(finding.id in UNREADABLE for finding in findings) else exit_code(findings)
    _show(options, outcome, findings, code)
    return code


def _check(options: argparse.Namespace) -> None:
    if options.val_share is not None and not 0 <= options.val_share < 1:
        raise _UsageError(
            f"--val-share {options.val_share}: a share is from 0 up to, and without, 1", "--val-share 0.1"
        )
    if not 0 < options.near_threshold <= 1:
        raise _UsageError(f"--near-threshold {options.near_threshold}: above 0, up to 1", "--near-threshold 0.8")
    for name in ("max_seq_length", "processes"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise _UsageError(f"--{name.replace('_', '-')} {getattr(options, name)}: at least 1")


def _columns(pairs: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for pair in pairs:
        role, sign, column = pair.partition("=")
        if role not in MAPPED or not sign or not column:
            raise _UsageError(f"--map {pair}: not ROLE=COLUMN", f"roles are {', '.join(MAPPED)}")
        columns[role] = column
    if columns and "messages" not in columns and not {"user", "assistant"} <= set(columns):
        raise _UsageError("--map needs user and assistant, or messages", "--map user=COLUMN assistant=COLUMN")
    if "messages" in columns and {"user", "assistant"} & set(columns):
        raise _UsageError("--map takes user and assistant, or messages, not both")
    return columns


def _tokenizer(options: argparse.Namespace) -> tuple[ChatTokenizer | None, int, list[Finding]]:
    """Return what tokens are counted with, and what there is to say about it."""
    name, revision, length = options.model, None, options.max_seq_length
    if name is None or length is None:
        config = options.config or recommended(judge(probe()))
        try:
            settings = resolve(config, ()).settings
        except ConfigError as exc:
            raise _UsageError(str(exc).splitlines()[0], f"make config CONFIG={config} shows all of it") from exc
        if name is None:
            name, revision = settings.model.model_name_or_path, settings.model.revision
        length = length or settings.training.max_seq_length
    try:
        tokenizer = ChatTokenizer.load(name, revision)
    except ModelFileError as exc:
        if options.model:
            found, _, fix = str(exc).rpartition("; ")
            raise _UsageError(found, fix) from exc
        found, _, fix = str(exc).rpartition("; ")
        return None, length, [skipped("data.tokens", f"{found}, so tokens were not counted", fix)]
    return tokenizer, length, [ok("model.tokenizer", f"tokens are those of {name}, {length} a row")]


def _wanted(options: argparse.Namespace, tokenizer: ChatTokenizer | None, max_seq_length: int) -> Wanted:
    columns = _columns(options.map)
    job = Job(
        Reading(columns, options.text_prompt, options.trim),
        tokenizer,
        max_seq_length,
        options.group,
        options.stratify,
        options.dedupe == "near",
        drop_long=options.long_rows == "drop",
        cache=None if options.no_cache else LENGTH_CACHE,
    )
    said: dict[str, Any] = {
        "map": columns,
        "text_prompt": options.text_prompt,
        "trim": options.trim,
        "on_bad_row": options.on_bad_row,
        "dedupe": options.dedupe,
        "near_threshold": options.near_threshold if options.dedupe == "near" else None,
        "long_rows": options.long_rows,
        "val_share": options.val_share,
        "group": options.group,
        "stratify": options.stratify,
        "seed": options.seed,
        "hub_split": options.split,
        "hub_revision": options.revision,
        "max_seq_length": max_seq_length if tokenizer else None,
        "tokenizer": tokenizer.fingerprint if tokenizer else None,
    }
    return Wanted(
        job,
        options.out,
        options.dedupe,
        options.near_threshold,
        options.on_bad_row == "drop",
        Split(options.val_share, options.seed, options.group is not None),
        options.split,
        options.revision,
        options.format,
        options.processes,
        said,
    )


def _show(options: argparse.Namespace, outcome: Outcome, findings: list[Finding], code: int) -> None:
    following = _next_command(options, code, findings)
    if options.json:
        facts = {"written": str(options.out) if outcome.is_written else None, "next_command": following}
        print(as_json(findings, card=outcome.card, **facts))
        return
    render(findings)
    charts = [chart(found, f"tokens a row, {name}") for name, found in outcome.measures.items() if found.rows]
    lines = [line for drawn in charts for line in ("", *drawn)]
    if outcome.is_written:
        lines = ["", *card_summary(outcome.card, outcome.measures)]
    if lines:
        print("\n".join(lines))
    if outcome.is_written:
        verdict = f"written: {options.out}"
    elif options.audit:
        verdict = "fit to train on" if code == 0 else "not fit to train on"
    else:
        verdict = "nothing was written"
    painted = paint(verdict, "green" if code == 0 else "red", "bold", stream=sys.stdout)
    print(f"\n{painted} ({summary(findings)})\nnext: {following}")


def _next_command(options: argparse.Namespace, code: int, findings: list[Finding]) -> str:
    inputs = " ".join(map(shlex.quote, options.input))
    if code:
        bad_rows = any(finding.id == "data.row" and finding.severity == "error" for finding in findings)
        also = ', or leave bad rows out: ARGS="--on-bad-row drop"' if bad_rows and not options.audit else ""
        return f"mend the errors above{also}"
    if options.audit:
        return "make validate"
    val = options.out / "val.jsonl"
    held_out = f"data.val_file={val}" if val.exists() else "data.val_file=null"
    config = f"CONFIG={options.config} " if options.config else ""
    return f'make validate {config}SET="data.train_file={options.out}/train.jsonl {held_out}"' if inputs else ""


if __name__ == "__main__":
    raise SystemExit(main())
