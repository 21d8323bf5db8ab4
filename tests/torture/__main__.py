"""Try to break the kit: runs killed, writes that fail, configurations, rows and files of a run damaged by the thousand.

Run as:
    PYTHONPATH=tests python -m torture                            (or: make torture) all of it
    PYTHONPATH=tests python -m torture --only kills --kills 60
    PYTHONPATH=tests python -m torture --only configs --seed 7    other mutants
    PYTHONPATH=tests python -m torture --only configs --seed 7 --mutant 1234
    PYTHONPATH=tests python -m torture --keep FOLDER              leave everything there to look at

kills:   a small run is ended by SIGKILL, by SIGTERM and by several signals in a burst, at random moments and at random
         file operations, and resumed; each must end bit-equal to one nobody touched, and lose nothing beyond its last
         save.
writes:  a small run meets a full, failing or read-only disk at random writes, flushes and renames: it ends with one
         sentence, loses nothing that was saved, and ends bit-equal when it is gone on with. On Linux, with cc.
configs: each mutant is refused with findings, or resolved to exactly what it says.
rows:    each row is trained on for exactly what it says, or named with its line; training and data preparation agree.
bases:   a small base with tensors, files, index, configuration or tokenizer damaged, or other files beside it: refused
         with a reason, or each weight in memory is one of its files'.
texts:   text that tries to take the terminal over, in receipts, names, rows, configurations, arguments and answers: no
         order to a terminal gets through a command, and no name begins a line.
files:   a finished run's receipt, metrics, checkpoints and adapter, one of them damaged: whatever reads runs works or
         says why not, verify names the damage, nothing goes on with it.

A mutant that finds a fault is kept in a file (outputs/torture, or --keep) and made again by its number and seed.
Exit codes: 0 no faults, 1 faults, 2 wrong use.
"""

from __future__ import annotations

from kit.cli.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.command import command_parser, run_main
from kit.cli.console import duration, fail, say
from kit.data.pool import processes_for
from kit.stacks.stack import installed_stack
from torture.fuzz_bases import BaseFuzzer
from torture.fuzz_configs import ConfigFuzzer
from torture.fuzz_files import FileFuzzer
from torture.fuzz_rows import RowFuzzer
from torture.fuzz_texts import TextFuzzer
from torture.fuzzing import fuzz
from torture.kills import Torture
from torture.row_mutants import ROWS_IN_A_FILE
from torture.write_errors import WriteErrors, is_preloaded, run_preloaded, why_not

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from torture.fuzzing import Fuzzer

PARTS = ("kills", "writes", "configs", "rows", "bases", "texts", "files")
_SHARES = {"file": 0.35, "time": 0.15, "term": 0.1, "burst": 0.2, "call": 0.2}  # of the kills
_PER_RUN = 12
_FAULTS = Path("outputs/torture")


def main(argv: Sequence[str] | None = None) -> int:
    """Torture, report; return the exit code."""
    options = _parser().parse_args(argv)
    counts = {part: getattr(options, part) for part in PARTS}
    if wrong := next((part for part in PARTS if counts[part] < 1), None):
        return fail(f"--{wrong} {counts[wrong]}: at least 1")
    if options.mutant is not None and options.only in {None, "kills", "writes"}:
        return fail("--mutant: mutants have numbers within a part", "add --only configs, rows, bases, texts or files")
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        return _torture(options.keep, options)
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        return _torture(Path(folder), options)


def _torture(folder: Path, options: argparse.Namespace) -> int:
    stack = installed_stack()
    parts = (options.only,) if options.only else PARTS
    done: dict[str, dict[str, Any]] = {}
    small: Torture | None = None
    if {"kills", "files"} & set(parts) or is_preloaded():
        four_bit = "cpu" in stack.traits.four_bit_platforms
        small = Torture(folder, steps=16, save_steps=3, seed=options.seed, four_bit=four_bit)
        say(f"{stack.name} stack: one run in peace took {small.seconds:.1f} s")
    for part in parts:
        started = time.monotonic()
        if part == "kills" and small is not None:
            done[part] = _kill(small, options.kills)
        elif part == "writes":
            done[part] = _fail_writes(small, options) if small and is_preloaded() else _preloaded(folder, options)
        else:
            run = small.folder / "peace" if small else folder
            fuzzers: dict[str, Fuzzer] = {
                "configs": ConfigFuzzer(),
                "rows": RowFuzzer(),
                "bases": BaseFuzzer(),
                "texts": TextFuzzer(),
                "files": FileFuzzer(run),
            }
            done[part] = _fuzz(fuzzers[part], options)
        done[part]["seconds"] = round(time.monotonic() - started)
    faults = [fault for part in done.values() for fault in part["faults"]]
    if options.json:
        body = {"schema_version": 2, "stack": stack.name, "seed": options.seed, "parts": done}
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return 1 if faults else 0
    for fault in faults:
        print(f"fault: {fault}")
    for name, part in done.items():
        print(f"{name}: {_in_words(part)}; {len(part['faults'])} faults; {duration(part['seconds'])}")
    print(f"{stack.name} stack, seed {options.seed}: {len(faults) or 'no'} faults")
    return 1 if faults else 0


def _kill(torture: Torture, kills: int) -> dict[str, Any]:
    wanted = {how: round(kills * share) for how, share in _SHARES.items()}
    wanted["file"] += kills - sum(wanted.values())
    report = torture.report
    for _ in torture.storm(wanted, _PER_RUN):
        say(f"{sum(report.kills.values()):>5} kills, {report.finished} runs ended bit-equal")
    return report.as_json()


def _preloaded(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Let a process of its own do it: what makes writes fail is loaded before anything else."""
    if reason := why_not():
        return {"left_out": reason, "faults": []}
    keep = folder / "writes"
    keep.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torture", "--only", "writes", "--writes", str(options.writes)]
    told = run_preloaded(folder, [*command, "--seed", str(options.seed), "--keep", str(keep), "--json"])
    return dict(told["parts"]["writes"])


def _fail_writes(torture: Torture, options: argparse.Namespace) -> dict[str, Any]:
    writes = WriteErrors(torture, options.seed)
    for _ in writes.storm(options.writes):
        say(f"{sum(writes.report.failures.values()):>5} failing writes, {writes.report.finished} runs ended bit-equal")
    return writes.report.as_json()


def _fuzz(fuzzer: Fuzzer, options: argparse.Namespace) -> dict[str, Any]:
    count = getattr(options, fuzzer.name)
    if fuzzer.name == "rows":
        count = -(-count // ROWS_IN_A_FILE)
    numbers = range(count) if options.mutant is None else range(options.mutant, options.mutant + 1)
    said = started = time.monotonic()
    for tally in fuzz(fuzzer, options.seed, numbers, processes_for()):
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"{fuzzer.name}: {tally.mutants:,} of {count:,} mutants after {duration(said - started)}")
    kept = options.keep or _FAULTS
    if tally.found:
        kept.mkdir(parents=True, exist_ok=True)
    return {**tally.as_json(), "faults": tally.keep_faults(kept, fuzzer.suffix)}


def _in_words(part: dict[str, Any]) -> str:
    if "outcomes" in part:
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(part["outcomes"].items()))
        slowest = f"the slowest, {part['slowest']}, took {part['slowest_s']:.2f} s"
        return f"{part['mutants']:,} mutants ({outcomes}); {slowest}"
    if "left_out" in part:
        return f"left out: {part['left_out']}"
    if "failures" in part:
        errors = ", ".join(f"{count} {name}" for name, count in sorted(part["failures"].items()))
        return (
            f"{sum(part['failures'].values())} writes failed ({errors}) in {len(part['calls'])} kinds of calls; "
            f"{part['survived']} runs went on all the same; "
            f"{part['finished']} runs ended bit-equal to the one nobody touched"
        )
    kinds = ", ".join(f"{count} by {how}" for how, count in sorted(part["kills"].items()))
    moments = ", ".join(f"{count} while {moment}" for moment, count in sorted(part["kills_at"].items()))
    lost = f"at most {part['most_steps_lost']} logged steps were trained again, with a save every {part['save_steps']}"
    return (
        f"{sum(part['kills'].values())} kills ({kinds}; {moments}); {lost}; "
        f"{part['finished']} runs ended bit-equal to the one nobody touched"
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "torture")
    parser.add_argument("--only", choices=PARTS, help="this part alone")
    parser.add_argument("--kills", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--writes", type=int, default=100, help="that fail; default: %(default)s")
    parser.add_argument("--configs", type=int, default=20_000, help="mutants; default: %(default)s")
    parser.add_argument("--rows", type=int, default=200_000, help=f"in files of {ROWS_IN_A_FILE}; default: %(default)s")
    parser.add_argument("--bases", type=int, default=3_000, help="mutants; default: %(default)s")
    parser.add_argument("--texts", type=int, default=5_000, help="mutants; default: %(default)s")
    parser.add_argument("--files", type=int, default=3_000, help="mutants; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of everything; default: %(default)s")
    parser.add_argument("--mutant", type=int, metavar="NUMBER", help="only that mutant, of --only and --seed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work there, and leave it")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


if __name__ == "__main__":
    run_main(main)
