"""Measure how fast this kit and other tools turn rows into training data, on the same file in one run.

Run as:
    python -m bench.bench_data                            10,000, 100,000 and 1,000,000 rows; about 20 minutes
    python -m bench.bench_data --rows 10000 --tools ours trl
    python -m bench.bench_data --json                     one JSON object on stdout

Each tool reads the same generated rows with the same tokenizer files and ends with token ids and labels.
Appends to measurements/*.jsonl, from which the tables of docs/BENCHMARKS.md are made. Exit codes: 0
this kit was ahead of every other tool at every size, 1 it was not, 2 wrong use.
"""

from __future__ import annotations

from kit.cli.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data_preparation.measure import Run, run_program
from bench.data_preparation.peers import CACHE, PROGRAMS, TOOLS, SetupError, python_for, version_of
from bench.data_preparation.rows import make_model, make_rows
from bench.data_preparation.table import table, verdict
from bench.place import OF_DATA, append_results
from kit.cli.command import command_parser, run_main
from kit.cli.console import fail, say
from kit.data.pool import processes_for
from kit.plan.ledger import FOLDER

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

MAX_SEQ_LENGTH = 512
_TRAINED_ON = 20_000  # rows the tokenizer is trained on


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "bench_data.py")
    add = parser.add_argument
    add("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="sizes")
    add("--tools", nargs="+", choices=TOOLS, default=list(TOOLS), help="tools to measure")
    add("--processes", type=int, help="processes per tool (default: one per core)")
    add("--limit", type=float, default=1800, metavar="SECONDS", help="stop a tool after that (default: 1800)")
    add("--ledger", type=Path, default=FOLDER, metavar="FOLDER", help="default: measurements")
    add("--json", action="store_true", help="one JSON object on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show the table, return the exit code."""
    options = _parser().parse_args(argv)
    processes = processes_for(options.processes)
    if min(options.rows) < 1:
        return fail("--rows must be at least 1")
    runs: dict[int, list[Run]] = {}
    versions: dict[str, str] = {}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end what is being measured
    try:
        _measure(options, processes, runs, versions)
    except KeyboardInterrupt:
        say("\nstopped; measured so far:")
        print("\n".join(table(runs, versions)))
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    words, ahead = verdict(runs)
    results = {
        f"data/{size}/{run.tool}": {**asdict(run), "version": versions.get(run.tool, "")}
        for size, found in runs.items()
        for run in found
        if not run.failure
    }
    command = ["bench/bench_data.py", *(argv if argv is not None else sys.argv[1:])]
    append_results(options.ledger, "data", OF_DATA, command, results)
    if options.json:
        by_size = {str(size): [asdict(run) for run in found] for size, found in runs.items()}
        facts = {"schema_version": 1, "processes": processes, "max_seq_length": MAX_SEQ_LENGTH, "versions": versions}
        print(json.dumps({**facts, "runs": by_size, "verdict": words}, indent=2))
    else:
        print("\n".join([*table(runs, versions), "", words]))
    return 0 if ahead else 1


def _measure(options: argparse.Namespace, processes: int, runs: dict[int, list[Run]], versions: dict[str, str]) -> None:
    """Fill in ``runs`` by rows and ``versions`` by tool as they are found."""
    CACHE.mkdir(parents=True, exist_ok=True)
    model = CACHE / "tokenizer"
    sample = _rows_file(_TRAINED_ON)
    if not (model / "config.json").exists():
        say("training the tokenizer …", "dim")
        make_model(model, sample)
    pythons, failures = {}, {}
    for key in options.tools:
        try:
            pythons[key] = python_for(key)
            versions[TOOLS[key].name] = version_of(key, pythons[key])
        except SetupError as exc:
            failures[key] = f"{exc.message}; {exc.fix}"
    for size in options.rows:
        rows = _rows_file(size)
        runs[size] = []
        for key in options.tools:
            name = TOOLS[key].name
            if key in failures:
                runs[size].append(Run(name, failure=failures[key]))
                continue
            program = [str(PROGRAMS / TOOLS[key].program), str(rows), str(model), str(MAX_SEQ_LENGTH), str(processes)]
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                run = run_program(name, [pythons[key], *program], Path(folder), options.limit)
            told = (
                run.failure or f"{run.rate:,.0f} rows/s, {run.cpu_seconds:,.1f} CPU s, {run.peak_bytes / 2**20:,.0f} MB"
            )
            say(f"{size:>9,} rows  {name:<30} {told}", "dim")
            runs[size].append(run)


def _rows_file(size: int) -> Path:
    path = CACHE / f"rows-{size}.jsonl"
    if not path.exists():
        say(f"writing {size:,} rows …", "dim")
        make_rows(path, size)
    return path


if __name__ == "__main__":
    run_main(main)
