"""The options of data preparation, checked, and the tokenizer that counts tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.command import found_and_fix
from kit.cli.findings import Finding, ok, skipped
from kit.cli.mistakes import WrongUseError
from kit.config.error import ConfigError
from kit.config.resolve import resolve
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.shapes import Reading
from kit.intake.formats import FORMATS
from kit.intake.near import DEFAULT_THRESHOLD
from kit.intake.split import DEFAULT_SHARE, MOST_BY_DEFAULT, Split
from kit.intake.work import RowPipeline
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.machine.target import recommended
from kit.model.files import ModelFileError

if TYPE_CHECKING:
    import argparse

MAPPED = ("user", "assistant", "system", "messages")
_IN_THE_CARD = (
    *("map", "text_prompt", "trim", "split_turns", "on_bad_row", "dedupe", "near_threshold", "long_rows"),
    *("val_share", "group", "stratify", "seed"),
)


@dataclass(frozen=True)
class PrepareOptions:
    """What the user asked for.

    Attributes:
        drop_bad_rows: Drop bad rows, counted and listed, instead of writing nothing.
        hub_split: Of a Hugging Face dataset, as ``revision`` is.
        format: Of files whose names do not say it.
        processes: None for one per core.
        said: The options as the card records them.
        overwrite: Replace what an earlier run wrote.
    """

    job: RowPipeline
    out: Path
    dedupe: str
    near_threshold: float
    drop_bad_rows: bool
    split: Split
    hub_split: str
    revision: str | None
    format: str | None
    processes: int | None
    said: dict[str, Any]
    overwrite: bool


@dataclass(frozen=True)
class Meter:
    """What tokens are counted with; ``tokenizer`` is None if the model's is not on this machine."""

    model: str
    tokenizer: ChatTokenizer | None
    max_seq_length: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = parser.add_argument
    add("input", nargs="*", help="files, folders, globs, - for standard input, hf:NAME for a Hugging Face dataset")
    add("--audit", action="store_true", help="check the rows and write nothing")
    add("--json", action="store_true", help="one JSON object on stdout")
    reading = parser.add_argument_group("what the rows are")
    add = reading.add_argument
    add(
        "--map", nargs="+", metavar="ROLE=COLUMN", default=[], help="columns of user, assistant, system; or of messages"
    )
    add("--text-prompt", metavar="TEXT", help="the user turn before rows of plain text")
    add("--trim", action="store_true", help="drop answers before the first question")
    add("--split-turns", action="store_true", help="make one row per answer of a conversation, trained on alone")
    add("--format", choices=FORMATS, help="format of files whose names do not say it")
    add("--split", default="train", help="split of a Hugging Face dataset (default: train)")
    add("--revision", help="branch, tag or commit of a Hugging Face dataset")
    keeping = parser.add_argument_group("what is kept")
    add = keeping.add_argument
    add("--on-bad-row", choices=("stop", "drop"), default="stop", help="write nothing (default), or drop the row")
    add("--dedupe", choices=("none", "exact", "near"), default="none", help="drop rows that repeat an earlier one")
    add("--near-threshold", type=float, default=DEFAULT_THRESHOLD, help=f"similarity (default: {DEFAULT_THRESHOLD})")
    add("--long-rows", choices=("keep", "drop"), default="keep", help="rows longer than the sequence length")
    holding = parser.add_argument_group("what is held out")
    add = holding.add_argument
    default = f"{DEFAULT_SHARE:.0%}, at most {MOST_BY_DEFAULT:,} rows"
    add("--val-share", type=float, help=f"share of the rows (default: {default})".replace("%", "%%"))
    add("--group", metavar="KEY", help="rows with the same KEY stay on one side")
    add("--stratify", metavar="KEY", help="each value of KEY keeps its share on both sides")
    add("--seed", type=int, default=42, help="another seed holds out other rows (default: 42)")
    measuring = parser.add_argument_group("what tokens are counted with")
    add = measuring.add_argument
    add("--config", type=Path, help="the configuration the data is for (default: the one that fits this machine)")
    add("--model", help="the base model (default: the configuration's)")
    add("--max-seq-length", type=int, help="the sequence length (default: the configuration's)")
    add("--template-date", metavar="DAY", help="today's date for the chat template (default: the configuration's)")
    add("--no-cache", action="store_true", help="count every row again")
    add("--processes", type=int, help="number of processes (default: one per core)")
    writing = parser.add_argument_group("what is written")
    writing.add_argument(
        "--out", type=Path, default=Path("data/processed"), help="the folder (default: data/processed)"
    )
    writing.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote there")


def check(options: argparse.Namespace) -> None:
    """Check the options' values.

    Raises:
        WrongUseError: With the option and what is allowed.
    """
    if options.val_share is not None and not 0 <= options.val_share < 1:
        raise WrongUseError(f"--val-share {options.val_share}: must be at least 0 and below 1; --val-share 0.1")
    if not 0 < options.near_threshold <= 1:
        raise WrongUseError(
            f"--near-threshold {options.near_threshold}: must be above 0, at most 1; --near-threshold 0.8"
        )
    if options.split_turns and options.dedupe == "near":
        raise WrongUseError(
            "--split-turns with --dedupe near: the rows of one conversation are always near duplicates; "
            "--dedupe exact, or --dedupe near first, then --split-turns on its output"
        )
    if options.template_date is not None and not _is_day(options.template_date):
        raise WrongUseError(f"--template-date {options.template_date}: not a date; --template-date 2026-11-27")
    for name in ("max_seq_length", "processes"):
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is not None and value < 1:
            raise WrongUseError(f"{option} {value}: must be at least 1; omit {option} for the default")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _columns(pairs: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for pair in pairs:
        role, sign, column = pair.partition("=")
        if role not in MAPPED or not sign or not column:
            raise WrongUseError(f"--map {pair}: not ROLE=COLUMN; roles are {', '.join(MAPPED)}")
        if role in columns:
            raise WrongUseError(f"--map names {role} twice: {columns[role]} and {column}; name one column per role")
        columns[role] = column
    if columns and "messages" not in columns and not {"user", "assistant"} <= set(columns):
        raise WrongUseError("--map needs user and assistant, or messages; --map user=COLUMN assistant=COLUMN")
    if "messages" in columns and {"user", "assistant"} & set(columns):
        raise WrongUseError("--map takes user and assistant, or messages, not both; omit one of them")
    return columns


def meter_of(options: argparse.Namespace) -> tuple[Meter, list[Finding]]:
    """Return what tokens are counted with, and a finding about it.

    Raises:
        WrongUseError: The named configuration or model cannot be used.
    """
    name, revision, length, day = options.model, None, options.max_seq_length, options.template_date
    if name is None or length is None or (options.config and day is None):
        config = options.config or recommended(judge(probe()))
        try:
            settings = resolve(config, ()).settings
        except ConfigError as exc:
            raise WrongUseError(f"{str(exc).splitlines()[0]}; make config CONFIG={config} shows all of it") from exc
        if name is None:
            name, revision = settings.model.model_name_or_path, settings.model.revision
        length = length or settings.training.max_seq_length
        day = day or settings.data.template_date
    try:
        tokenizer = ChatTokenizer.load(name, revision, date=day)
    except ModelFileError as exc:
        found, fix = found_and_fix(exc)
        fix = fix.replace("data.template_date=", "--template-date ")
        if options.model:
            raise WrongUseError(f"{found}; {fix}") from exc
        return Meter(name, None, length), [skipped("data.tokens", f"{found}, so tokens were not counted", fix)]
    message = f"tokens counted with the tokenizer of {name}, max_seq_length {length}"
    return Meter(name, tokenizer, length), [ok("model.tokenizer", message)]


def options_of(options: argparse.Namespace, meter: Meter, cache: Path) -> PrepareOptions:
    """Translate the command line's options.

    Raises:
        WrongUseError: ``--map`` is wrong.
    """
    columns = _columns(options.map)
    job = RowPipeline(
        Reading(columns, options.text_prompt, options.trim),
        meter.tokenizer,
        meter.max_seq_length,
        options.group,
        options.stratify,
        options.dedupe == "near",
        drop_long=options.long_rows == "drop",
        split_turns=options.split_turns,
        cache=None if options.no_cache else cache,
    )
    said: dict[str, Any] = {name: getattr(options, name) for name in _IN_THE_CARD} | {
        "map": columns,
        "near_threshold": options.near_threshold if options.dedupe == "near" else None,
        "hub_split": options.split,
        "hub_revision": options.revision,
        "max_seq_length": meter.max_seq_length if meter.tokenizer else None,
        "model": meter.model if meter.tokenizer else None,
    }
    return PrepareOptions(
        job,
        options.out,
        options.dedupe,
        options.near_threshold,
        options.on_bad_row == "drop",
        Split(options.val_share, options.seed, options.group is not None or options.split_turns),
        options.split,
        options.revision,
        options.format,
        options.processes,
        said,
        options.overwrite,
    )
