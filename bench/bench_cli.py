"""Measure the time to detection, validation and the first step, each against its yardstick.

Run as:
    python -m bench.bench_cli              five alternating rounds of everything, medians and ratios
    python -m bench.bench_cli --rounds 1   a quick look

The ratios count: both sides alternate on the same machine. Appends to measurements/*.jsonl, from which the
tables of docs/BENCHMARKS.md are made. Exit codes: 0 measured and every goal reached, 1 a goal missed, 2 a command
failed.
"""

from __future__ import annotations

from kit.cli.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cpu_tables import waiting_table
from bench.pairs import Timed, pairs, prepare, run_pair, steps_beside_trl
from bench.place import OF_COMMANDS, append_results
from kit.cli.command import command_parser, run_main
from kit.cli.console import fail, say
from kit.plan.ledger import FOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Time each pair, write, show; return the exit code."""
    parser = command_parser(__doc__, "bench_cli.py")
    parser.add_argument("--rounds", type=int, default=5, help="measured runs of each command")
    parser.add_argument("--ledger", type=Path, default=FOLDER, metavar="FOLDER", help="default: measurements")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        return fail("--rounds must be at least 1")
    timed: list[Timed] = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for pair in pairs(Path(folder)):
            say(f"{pair.name} …", "dim")
            try:
                timed.append(run_pair(pair, options.rounds))
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as exc:
                return fail(f"{pair.name}: {exc}")
        say("a step of training …", "dim")
        steps = steps_beside_trl(Path(folder), options.rounds)
    timed += steps.timed
    ours, trls = steps.operators
    results = {f"cli/{item.pair.name}": item.as_mapping() for item in timed}
    results["cli/operators a step"] = {"kit": ours, "trl": trls}
    command = ["bench/bench_cli.py", *(argv if argv is not None else sys.argv[1:])]
    ledger = append_results(options.ledger, "cli", OF_COMMANDS, command, results)
    print("\n".join(waiting_table(results)))
    missed = [item.pair.name for item in timed if item.is_missed]
    print(f"written: {ledger}; {'goals missed: ' + '; '.join(missed) if missed else 'every goal is reached'}")
    return 1 if missed else 0


if __name__ == "__main__":
    run_main(main)
