"""Hold the plan's memory to what really is taken: train one micro-batch of each case and compare, term and total.

Run as:
    python scripts/measure_memory.py              on an NVIDIA GPU: Mistral-7B, quantised there, in 14 configurations
                                                  (random weights, no download); elsewhere: small models on the CPU
    python scripts/measure_memory.py --small      the small models, also where there is a GPU
    python scripts/measure_memory.py --only 3 5   some of the cases
    python scripts/measure_memory.py --json       one JSON object on stdout

On a GPU the peak is ``torch.cuda.max_memory_allocated`` and may be 5 % off. On a CPU the activations that autograd
keeps are counted by torch's own hooks and may be 1 % off, and the peak by torch's profiler, 5 %. Exit codes: 0 within,
1 a case is further off, 2 wrong use.
"""

from __future__ import annotations

from kit.interpreter import use_project_python

if __name__ == "__main__":
    use_project_python()

import gc
import json
import sys
from typing import TYPE_CHECKING

from kit.budget.cases import Case, cases
from kit.budget.comparison import Compared, Refused, compare, refused
from kit.command import command_parser, run_main
from kit.console import fail, paint, say
from kit.machine.one_device import use_judged_device
from kit.quiet_libraries import quiet_imports
from kit.refusals import is_out_of_memory
from kit.stack import installed_stack

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

SCHEMA_VERSION = 1


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "measure_memory.py")
    parser.add_argument("--small", action="store_true", help="small models on the CPU, also where there is a GPU")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="the cases with these numbers")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _measured(case: Case) -> Compared | Refused:
    """Compare one case. What runs out of memory is let go before the next one: its exception holds the tensors."""
    room = _free_bytes()
    try:
        return compare(case)
    except Exception as exc:
        if not is_out_of_memory(exc):
            raise
    return refused(case, room)


def _free_bytes() -> int | None:
    """Give back what the last case took, and return what a GPU has free then."""
    import torch

    gc.collect()
    if not torch.cuda.is_available():
        return None
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


def _verdict(results: Sequence[Compared | Refused]) -> tuple[str, bool]:
    """Return one sentence over all cases, and whether they hold: at least one has to be measured."""
    off = sum(not result.is_within for result in results)
    without_room = sum(isinstance(result, Refused) for result in results)
    if off:
        return f"{off} of {len(results)} cases are further off", False
    if without_room == len(results):
        return "nothing measured: no case has room here", False
    return f"all within; {without_room} without room here" if without_room else "all within", True


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, compare, return the exit code."""
    options = _parser().parse_args(argv)
    stack = installed_stack().name
    if stack == "none":
        return fail("torch and transformers are not installed", "make setup")
    use_judged_device()
    with quiet_imports():
        import kit.budget.measure  # noqa: F401 - loads torch, quietly
    found = cases(stack, small=options.small)
    wanted = options.only or range(1, len(found) + 1)
    unknown = [number for number in wanted if not 1 <= number <= len(found)]
    if unknown:
        return fail(f"--only {unknown[0]}: there are cases 1 to {len(found)}")
    results: list[Compared | Refused] = []
    for number in wanted:
        case = found[number - 1]
        say(f"{number:>2} {case.name} …", "dim")
        results.append(_measured(case))
        if not options.json:
            print(results[-1].line)
    verdict, passed = _verdict(results)
    if options.json:
        body = {
            "schema_version": SCHEMA_VERSION,
            "stack": stack,
            "verdict": "passed" if passed else "failed",
            "cases": [result.as_mapping() for result in results],
        }
        print(json.dumps(body, indent=2))
    else:
        print(paint(verdict, "green" if passed else "red", "bold", stream=sys.stdout))
    return 0 if passed else 1


if __name__ == "__main__":
    run_main(main)
