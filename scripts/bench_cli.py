"""Measure what a person waits for: detection, validation, the way to the first step, each against its yardstick.

Run as:
    python scripts/bench_cli.py              five rounds of everything, in turns, medians and ratios
    python scripts/bench_cli.py --rounds 1   a quick look

Ratios are what counts: both sides run in turns on the same machine. Writes outputs/bench/cli.json. Exit codes: 0
measured and every goal reached, 1 a goal missed, 2 a command failed.
"""

from __future__ import annotations

from kit.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kit.bench.pairs import Timed, pairs, prepare, run_pair, steps_beside_trl
from kit.command import command_parser, run_main
from kit.console import fail, say
from kit.json_files import write_json
from kit.run.provenance import describe_code
from kit.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Time each pair, write, show; return the exit code."""
    parser = command_parser(__doc__, "bench_cli.py")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command that count")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        return fail("--rounds is a number from 1 on")
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
    print(table(timed))
    ours, trls = steps.operators
    print(f"\ntorch's operators that a step calls, adapter in bfloat16: the kit's {ours:,.0f}, trl's {trls:,.0f}")
    output = Path("outputs/bench")
    output.mkdir(parents=True, exist_ok=True)
    write_json(
        output / "cli.json",
        {
            "schema_version": 1,
            "command": ["scripts/bench_cli.py", *(argv if argv is not None else sys.argv[1:])],
            "rounds": options.rounds,
            "versions": installed_stack().versions,
            **describe_code(),
            "operators_a_step": {"kit": ours, "trl": trls},
            "pairs": [
                {
                    "name": item.pair.name,
                    "ours_seconds": item.ours_seconds,
                    "other_seconds": item.other_seconds,
                    "ratio": item.ratio,
                    "uncertainty": item.uncertainty,
                    "goal": item.pair.goal,
                }
                for item in timed
            ],
        },
    )
    missed = [item.pair.name for item in timed if item.is_missed]
    print(f"written: {output}/cli.json; {'goals missed: ' + '; '.join(missed) if missed else 'every goal is reached'}")
    return 1 if missed else 0


def table(timed: Sequence[Timed]) -> str:
    """Write the results as a Markdown table."""
    lines = ["| what | the kit, s | the other, s | other / kit | goal |", "|---|---:|---:|---:|---:|"]
    for item in timed:
        # A ratio with an uncertainty is measured to more than a hundredth.
        digits = 2 if item.uncertainty is None else 3
        other = "" if item.other_seconds is None else f"{item.other_seconds:.{digits}f}"
        ratio = "" if item.ratio is None else f"{item.ratio:.{digits}f}"
        ratio += "" if item.uncertainty is None else f" ± {item.uncertainty:.{digits}f}"
        goal = "" if item.pair.goal is None else f"{item.pair.goal:g}"
        lines.append(f"| {item.pair.name} | {item.ours_seconds:.{digits}f} | {other} | {ratio} | {goal} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
