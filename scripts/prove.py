"""Is this device what the kit says it is, and what does the kit do on it? Measured, into measurements/*.jsonl.

Run as:
    make prove                                           on an NVIDIA GPU: Mistral-7B in 4 bits, random weights
    python scripts/prove.py --limit 540                  what is worth most first, as far as these seconds go
    python scripts/prove.py                              again: goes on with what is not measured yet
    python scripts/prove.py --only speed/full memory     what begins with one of these
    python scripts/prove.py --list                       what there is to measure, and what of it is known here
    python scripts/prove.py --scale small                the CPU's scale, which shows that everything runs

Needs no network and no data. Each measurement is appended to the ledger as soon as it is there; what was measured with
this device, driver, versions and code is not measured again (--again does). Exit codes: 0 measured, 1 a measurement
failed other than by memory, 2 wrong use.
"""

from __future__ import annotations

from kit.interpreter import PROJECT_ROOT, use_project_python

if __name__ == "__main__":
    use_project_python()

import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kit.bench.conductor import Orders, Outcome, conduct
from kit.bench.measurements import Measurement, measurements
from kit.bench.variants import SCALES
from kit.budget.cases import case_names
from kit.command import command_parser, run_main
from kit.console import fail, paint, say
from kit.machine.one_device import use_judged_device
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.records.ledger import Place, code_hash
from kit.stack import installed_stack

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kit.machine.facts import Machine
    from kit.machine.platforms import Judgement
    from kit.stack import Stack

SCRIPTS = PROJECT_ROOT / "scripts"
# What a measurement's figures depend on: a change elsewhere does not make them old.
MEASURED = (
    *(SCRIPTS / "kit" / "stack" / name for name in ("trainer.py", "model.py", "levers.py", "arguments.py")),
    *(SCRIPTS / "kit" / "stack" / name for name in ("rows.py", "torch_attention.py")),
    *(SCRIPTS / "kit" / "bench" / name for name in ("steps.py", "variants.py", "resident.py", "worker.py")),
    SCRIPTS / "kit" / "budget" / "measure.py",
    PROJECT_ROOT / "configs" / "training_config_h100.yaml",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, show; return the exit code."""
    options = _parser().parse_args(argv)
    os.chdir(PROJECT_ROOT)
    machine = probe()
    judgement = judge(machine)
    use_judged_device()  # inherited by everything that is measured
    device = "cuda" if judgement.platform in {"h100", "cuda"} else "cpu"
    scale = options.scale or ("7b" if device == "cuda" else "small")
    if scale == "7b" and device != "cuda":
        return fail("the 7b scale needs an NVIDIA GPU", "--scale small")
    stack = installed_stack()
    if stack.name == "none":
        return fail("torch and transformers are not installed", "make setup")
    place = place_of(machine, judgement, stack, scale)
    found = measurements(case_names(stack.name, on_gpu=device == "cuda"))
    chosen = [item for item in found if not options.only or item.name.startswith(tuple(options.only))]
    if not chosen:
        return fail(f"nothing begins with {' or '.join(options.only)}", "--list")
    impossible = {item.name: reason for item in chosen if (reason := _problem(item, stack, judgement, device))}
    say(f"{judgement.platform}: {judgement.reason}", "bold")
    command = ["scripts/prove.py", *(argv if argv is not None else sys.argv[1:])]
    folder = options.base or Path("models") / f"bench-{scale}-{device}"
    log = Path("outputs/prove/worker.log")
    orders = Orders(options.limit, options.again, command, device, folder.resolve(), log.resolve())
    outcomes = conduct(chosen, impossible, place, orders, _tell)
    print(f"written: {place.file.relative_to(PROJECT_ROOT)}")
    failed = [item for item in outcomes if item.record and not item.record.is_final]
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "prove.py")
    parser.add_argument("--limit", type=float, default=540, metavar="SECONDS", help="in all; default %(default)s")
    parser.add_argument("--scale", choices=[name for name in SCALES if name != "steady"], help="7b on a GPU")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="what begins with one of these")
    parser.add_argument("--again", action="store_true", help="measure also what is measured already")
    parser.add_argument("--base", type=Path, help="where the random base is kept")
    return parser


def place_of(machine: Machine, judgement: Judgement, stack: Stack, scale: str) -> Place:
    """Return where and with what is measured here."""
    gpu = judgement.gpu
    return Place(
        scale,
        gpu.name if gpu else f"{machine.cpu_model}, {machine.cpu_count} cores",
        (machine.nvidia.driver_version or "") if gpu else "",
        (gpu.memory_total_bytes if gpu else machine.memory_total_bytes) or 0,
        stack.versions,
        platform.python_version(),
        code_hash(MEASURED),
    )


def _problem(item: Measurement, stack: Stack, judgement: Judgement, device: str) -> str:
    if item.current_only and stack.name != "current":
        return f"the {stack.name} stack has no such lever"
    if item.cuda_only and device != "cuda":
        return "needs an NVIDIA GPU"
    if item.package and item.package not in stack.versions:
        return f"needs {item.package}, which is not installed"
    memory = judgement.gpu.memory_total_bytes if judgement.gpu else 0
    if device == "cuda" and memory < item.gpu_bytes:
        return f"needs {item.gpu_bytes / 1e9:.0f} GB of GPU memory"
    return ""


def _tell(outcome: Outcome) -> None:
    record = outcome.record
    if record is None:
        print(f"- {outcome.measurement.name}: {outcome.why_not}", flush=True)
        return
    result = record.result
    text = result["failed"] if "failed" in result else _summary(result)
    print(f"{outcome.measurement.name}: {text} ({record.seconds:.1f} s{', ' + outcome.why_not if outcome.why_not else ''})", flush=True)


def _summary(result: dict) -> str:
    keys = ("tokens_per_second", "milliseconds_per_step", "peak_memory_bytes", "joules", "matmul_flop_per_second", "peak_bytes", "within", "planned_bytes", "reserved_bytes", "outside_allocator_bytes", "next")
    found = {key: result[key] for key in keys if key in result}
    return str(found or {key: value for key, value in result.items() if not isinstance(value, list)})[:400]


if __name__ == "__main__":
    run_main(main)
