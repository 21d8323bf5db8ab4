"""Measure this device and the kit on it: speed, memory, parity, a first run; written to measurements/*.jsonl.

Run as:
    make prove                                           on an NVIDIA GPU: Mistral-7B in 4 bits, random weights
    python -m bench.prove --limit 540                  the most useful first, within these seconds
    python -m bench.prove                              again: continues with what is not measured yet
    python -m bench.prove --only speed/full memory     names that begin with these
    python -m bench.prove --list                       list the measurements and their state here
    python -m bench.prove --scale small                the CPU's scale, to check that everything runs

Needs no network and no data. Appends each measurement to the ledger as soon as it is done; what was measured with
this device, driver, versions and code is not measured again (--again does). Exit codes: 0 measured, 1 a measurement
failed, but not from out of memory, 2 wrong use.
"""

from __future__ import annotations

from kit.cli.interpreter import PROJECT_ROOT, use_project_python

if __name__ == "__main__":
    use_project_python()

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import bottleneck
from bench.conductor import Orders, Outcome, conduct
from bench.goals import goal_lines
from bench.known import devices
from bench.measurements import Measurement, measurements
from bench.memory_cases import case_names
from bench.place import OF_TRAINING, place_of
from bench.tables import draw, memory_table, other_lines, speed_table
from bench.variants import SCALES
from kit.cli.command import command_parser, run_main
from kit.cli.console import fail, say
from kit.config.platforms import CUDA_PLATFORMS
from kit.machine.one_device import use_judged_device
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.plan.ledger import FOLDER, measured_here, read
from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bench.known import Device
    from kit.machine.platforms import Judgement
    from kit.plan.ledger import Record
    from kit.stacks.stack import Stack

_ON_DISK = 16_000_000_000  # the base's weights, and the checkpoints of a short run
_OUTPUT = PROJECT_ROOT / "outputs" / "prove"
_LOG = _OUTPUT / "worker.log"


def main(argv: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - each way out of the checks
    """Measure, write, show; return the exit code."""
    options = _parser().parse_args(argv)
    if not options.limit > 0:
        return fail("--limit must be a number of seconds above 0")
    ledgers, folder = (path and path.resolve() for path in (options.ledger, options.base))
    os.chdir(PROJECT_ROOT)
    machine = probe()
    judgement = judge(machine)
    use_judged_device()  # inherited by everything that is measured
    device = "cuda" if judgement.platform in CUDA_PLATFORMS else "cpu"
    scale = options.scale or ("7b" if device == "cuda" else "small")
    if scale == "7b" and device != "cuda":
        return fail("the 7b scale needs an NVIDIA GPU", "use --scale small")
    stack = installed_stack()
    if not stack.is_installed:
        return fail("torch and transformers are not installed", "make setup")
    place = place_of(machine, judgement, stack, scale, OF_TRAINING)
    ledger = (ledgers or (FOLDER if scale == "7b" else _OUTPUT)) / place.file_name
    found = measurements(case_names(stack.traits, on_gpu=device == "cuda"))
    chosen = [item for item in found if not options.only or item.name.startswith(tuple(options.only))]
    if not chosen:
        return fail(f"nothing begins with {' or '.join(options.only)}", "list the names: python -m bench.prove --list")
    folder = folder or PROJECT_ROOT / "models" / f"bench-{scale}-{device}"
    has_room = scale != "7b" or folder.is_dir() or (machine.disk_free_bytes or 0) >= _ON_DISK
    impossible = {
        item.name: reason
        for item in chosen
        if (reason := _problem(item, stack, judgement, device))
        or (reason := "" if has_room or not item.on_disk else f"needs {_ON_DISK / 1e9:.0f} GB of free disk")
    }
    if options.list:
        _list(chosen, impossible, measured_here(read(ledger), place))
        return 0
    if not _is_writable(ledger):
        return fail(f"{ledger} is not writable for this user", "use --ledger outputs/prove")
    say(f"{judgement.platform}: {judgement.reason}", "bold")
    if scale == "small":
        say("a model of two layers checks that everything runs; its figures do not apply to a GPU", "dim")
    command = ["bench/prove.py", *(argv if argv is not None else sys.argv[1:])]
    orders = Orders(options.limit, options.again, command, device, folder, ledger, _LOG)
    outcomes = conduct(chosen, impossible, place, orders, _tell)
    known = next((item for item in devices(read(ledger), scale) if item.name == place.device), None)
    if known and scale == "7b" and not options.json:
        show(known)
    if options.json:
        body = {"schema_version": 1, "ledger": str(ledger), "measurements": [_as_mapping(item) for item in outcomes]}
        print(json.dumps(body, indent=2))
    else:
        say(f"written: {ledger}; output of the libraries: {_LOG}")
    failed = [item for item in outcomes if item.record and not item.record.is_final]
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "prove.py")
    parser.add_argument("--limit", type=float, default=540, metavar="SECONDS", help="in total; default: %(default)s")
    parser.add_argument("--scale", choices=[name for name in SCALES if name != "steady"], help="7b on a GPU")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names that begin with these")
    parser.add_argument("--again", action="store_true", help="repeat earlier measurements too")
    parser.add_argument("--list", action="store_true", help="list the measurements without running them")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--ledger", type=Path, metavar="FOLDER", help="default: measurements; outputs/prove if small")
    parser.add_argument("--base", type=Path, help="directory of the random base")
    return parser


def _is_writable(path: Path) -> bool:
    while not path.exists():
        path = path.parent
    return os.access(path, os.W_OK)


def _problem(item: Measurement, stack: Stack, judgement: Judgement, device: str) -> str:
    if item.padding_free_only and not stack.traits.padding_free:
        return f"the {stack.name} stack has no such option"
    if item.cuda_only and device != "cuda":
        return "needs an NVIDIA GPU"
    if item.package and item.package not in stack.versions:
        return f"needs {item.package}, which is not installed"
    memory = judgement.gpu.memory_total_bytes if judgement.gpu else 0
    if device == "cuda" and memory < item.gpu_bytes:
        return f"needs {item.gpu_bytes / 1e9:.0f} GB of GPU memory"
    return ""


def _list(chosen: Sequence[Measurement], impossible: dict[str, str], known: dict[str, Record]) -> None:
    for item in chosen:
        state = f"measured {known[item.name].date[:10]}" if item.name in known else impossible.get(item.name, "")
        print(f"{item.name}: {item.answers}{f' ({state})' if state else ''}")


def _tell(outcome: Outcome) -> None:
    """Say on one line what became of a measurement."""
    record, name = outcome.record, outcome.measurement.name
    if record is None:
        say(f"{name}: {outcome.why_not}", "dim")
    elif "failed" in record.result:
        say(f"{name}: {record.result['failed']}", "yellow")
    else:
        say(f"{name}: {outcome.why_not or f'measured in {record.seconds:.1f} s'}{_figure(record.result)}")


def _figure(result: dict[str, Any]) -> str:
    """Return a measurement's one figure, where it has one."""
    if "tokens_per_second" in result:
        return f", {result['tokens_per_second']:,.0f} tokens/s"
    if "peak_bytes" in result:
        peak = result["peak_bytes"]
        return f", peak {peak['predicted'] / peak['measured'] - 1:+.1%} off"
    return f", next: {result['next']}" if "next" in result else ""


def show(known: Device) -> None:
    """Print tables, profiles and goals, and draw the speeds."""
    for workload in ("full", "ragged"):
        profile = known.result(f"profile/{workload}")
        profiled = bottleneck.lines(profile) if profile else []
        print("\n".join([f"\n{workload} rows\n", *speed_table(known, workload), "", *profiled]))
    print("\n".join(["\nmemory\n", *memory_table(known), "", *other_lines(known), "", *goal_lines(known)]))
    picture = _OUTPUT / "speed.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(known, picture)
    say(f"\ndrawn: {picture}")


def _as_mapping(outcome: Outcome) -> dict[str, Any]:
    record = asdict(outcome.record) if outcome.record else None
    return {"name": outcome.measurement.name, "why_not": outcome.why_not, "record": record}


if __name__ == "__main__":
    run_main(main)
