"""Kill a small run at random moments, resume it each time, and compare its end with a run nobody touched.

Run as:
    python scripts/torture.py                       (or: make torture) 300 kills
    python scripts/torture.py --kills 60 --json
    python scripts/torture.py --keep FOLDER         leave everything there to look at

Of four runs two are killed by SIGKILL at a random file operation of theirs, one by SIGKILL and one by SIGTERM at a
random moment. Exit codes: 0 every run ended bit-equal and nothing was lost beyond the last save, 1 not so, 2 wrong use.
"""

from __future__ import annotations

from kit.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kit.console import duration, fail, say
from kit.stack import installed_stack
from kit.torture.kills import Torture

if TYPE_CHECKING:
    from collections.abc import Sequence

_HOW = ("file", "time", "file", "term")
_PER_RUN = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Torture, report; return the exit code."""
    options = _parser().parse_args(argv)
    if options.kills < 1:
        return fail(f"--kills {options.kills}: at least 1")
    if options.keep is None:
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            return _torture(Path(folder), options)
    options.keep.mkdir(parents=True, exist_ok=True)
    return _torture(options.keep, options)


def _torture(folder: Path, options: argparse.Namespace) -> int:
    started = time.monotonic()
    stack = installed_stack()
    torture = Torture(folder, steps=16, save_steps=3, seed=options.seed, four_bit="cpu" in stack.four_bit_platforms)
    say(f"{stack.name} stack: one run in peace took {torture.seconds:.1f} s; {options.kills} kills to come")
    round_number = 0
    while sum(torture.report.kills.values()) < options.kills:
        how = _HOW[round_number % len(_HOW)]
        left = options.kills - sum(torture.report.kills.values())
        torture.strike(min(_PER_RUN, left), how, f"{round_number}-{how}")
        round_number += 1
        say(f"{sum(torture.report.kills.values()):>5} kills, {torture.report.finished} runs finished bit-equal")
    report = torture.report
    seconds = round(time.monotonic() - started)
    if options.json:
        print(json.dumps({"schema_version": 1, "stack": stack.name, "seconds": seconds, **report.as_json()}, indent=2))
    else:
        for fault in report.faults:
            print(f"fault: {fault}")
        kinds = ", ".join(f"{count} by {how}" for how, count in sorted(report.kills.items()))
        moments = ", ".join(f"{count} while {moment}" for moment, count in sorted(report.kills_at.items()))
        print(f"{sum(report.kills.values())} kills ({kinds}; {moments}) in {duration(seconds)}, seed {options.seed}")
        print(f"at most {report.most_steps_lost} logged steps were trained again after a kill; a save every 3 steps")
        print(f"{report.finished} runs ended bit-equal to the one nobody touched; {len(report.faults)} faults")
    return 1 if report.faults else 0


def _parser() -> argparse.ArgumentParser:
    summary, _, body = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=body, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of when they come; default: %(default)s")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work there, and leave it")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
