"""Measure what each lever is worth on this device: a random-weight Mistral-7B in NF4 on a GPU, a tiny one on a CPU.

Run as:
    python scripts/benchmark.py                       under ten minutes; trl's own defaults first and last
    python scripts/benchmark.py --scale small         the CPU's scale, which only shows that everything runs
    python scripts/benchmark.py --variants "kit defaults" "rows end to end"
    python scripts/benchmark.py --profile             also: what the fastest variant's steps consist of
    python scripts/benchmark.py --peers               the kit and trl alone; by default also Unsloth, in .cache/bench

Writes outputs/bench/gpu-SCALE.json and .png and prints the table. Nothing is downloaded; the 7B base is written once to
models/ (14.5 GB). Exit codes: 0 measured, 1 a variant failed other than by memory, 2 wrong use.
"""

from __future__ import annotations

from kit.interpreter import PROJECT_ROOT, use_project_python

if __name__ == "__main__":
    use_project_python()

import functools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.bench import bottleneck
from kit.bench.child import Bench
from kit.bench.peers import PEERS, Peer, environments, version_in
from kit.bench.results import draw, fastest, markdown, with_ratios
from kit.bench.variants import BASE, BASELINE, CEILING, KIT, SCALES, VARIANTS, Variant
from kit.command import command_parser, run_main
from kit.console import fail, say
from kit.json_files import write_json
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.run.provenance import describe_code
from kit.stack import installed_stack

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

LEFT_OUT = "left out: no time"
_WORKLOADS = ("full", "ragged")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, show; return the exit code."""
    options = _parser().parse_args(argv)
    os.chdir(PROJECT_ROOT)
    machine = probe()
    judgement = judge(machine)
    device = "cuda" if judgement.platform in {"h100", "cuda"} else "cpu"
    scale = options.scale or ("7b" if device == "cuda" else "small")
    if scale == "7b" and device != "cuda":
        return fail("the 7b scale needs an NVIDIA GPU", "--scale small")
    if installed_stack().name != "current":
        return fail("the levers are the current stack's", "make setup STACK=current")
    peers = [peer for peer in PEERS if peer.key in options.peers]
    pythons, reasons = environments(peers, on_cuda=scale == "7b")
    bench = Bench(scale, device, options.base or Path("models") / f"bench-{scale}-{device}")
    say(f"{judgement.platform}: {judgement.reason}; a random base in {bench.base}", "bold")
    started = time.monotonic()
    for step in (BASE, CEILING):
        outcome = bench.child(step)
        if "failed" in outcome:
            return fail(f"{step}: {outcome['failed']}", "free disk or memory, then run it again")
    ceiling = outcome["matmul_flop_per_second"]
    runs = _runs(bench, _chosen(options.variants, device), peers, pythons)
    measured = _measure_all(runs, started, options.limit)
    measured += [
        {"variant": peer.name, "workload": workload, "failed": reasons[peer.key]}
        for peer in peers
        if peer.key in reasons
        for workload in _WORKLOADS
    ]
    rows = with_ratios(measured, ceiling, SCALES[scale])
    ours = [variant.name for variant in VARIANTS if variant.name != BASELINE]
    best = fastest(rows, ours) if options.profile else None
    profiled = bench.child(best["variant"], best["workload"], profile=True) if best else None
    folder = Path("outputs/bench")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "schema_version": 1,
        "command": ["scripts/benchmark.py", *(argv if argv is not None else sys.argv[1:])],
        "platform": judgement.platform,
        "device": judgement.reason,
        "versions": installed_stack().versions,
        "peers": {key: version_in(python, key) for key, python in pythons.items()},
        "profile": profiled,
        "matmul_flop_per_second": ceiling,
        "seconds": round(time.monotonic() - started, 1),
        **describe_code(),
    }
    write_json(folder / f"gpu-{scale}.json", {**facts, "rows": rows})
    draw(rows, folder / f"gpu-{scale}.png")
    print(markdown(rows))
    if profiled:
        print(f"profile: {profiled['failed']}" if "failed" in profiled else "\n".join(bottleneck.lines(profiled)))
    print(f"matrix product: {ceiling / 1e12:.2f} TFLOP/s; written: {folder}/gpu-{scale}.json and .png")
    return 1 if bench.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__, "benchmark.py")
    parser.add_argument("--scale", choices=SCALES, help="7b on a GPU, small on a CPU")
    parser.add_argument("--variants", nargs="*", choices=[variant.name for variant in VARIANTS], metavar="NAME")
    keys = sorted({peer.key for peer in PEERS})
    parser.add_argument("--peers", nargs="*", default=keys, choices=keys, metavar="NAME", help="default: %(default)s")
    parser.add_argument("--profile", action="store_true", help="profile three steps of the fastest variant")
    parser.add_argument("--limit", type=float, default=540, metavar="SECONDS", help="start no variant after this")
    parser.add_argument("--base", type=Path, help="where the random base is kept")
    return parser


def _chosen(names: Sequence[str] | None, device: str) -> list[Variant]:
    """Return the variants that were asked for and can be measured here; say which cannot, and why."""
    chosen = []
    for variant in VARIANTS:
        if names and variant.name not in names:
            continue
        if variant.cuda_only and device != "cuda":
            say(f"left out: {variant.name} needs an NVIDIA GPU", "yellow")
        elif variant.package and variant.package not in installed_stack().versions:
            say(f"left out: {variant.name} needs {variant.package}, which is not installed", "yellow")
        else:
            chosen.append(variant)
    return chosen


@dataclass(frozen=True)
class _Run:
    """One row of the table, to be measured; the last of them is the baseline once more, for which room is kept."""

    name: str
    workload: str
    measure: Callable[[], dict[str, Any]]
    is_kept_room_for: bool = False


def _runs(bench: Bench, variants: Sequence[Variant], peers: Sequence[Peer], pythons: dict[str, str]) -> list[_Run]:
    """Return what is measured, in its order: the baseline, the kit as it comes, the peers, each lever, the baseline."""
    runs = [_run(bench, variant, workload) for variant in variants for workload in variant.workloads]
    others = [
        _Run(peer.name, workload, functools.partial(bench.peer, peer, pythons[peer.key], workload))
        for peer in peers
        if peer.key in pythons
        for workload in _WORKLOADS
    ]
    first = sum(run.name in {BASELINE, KIT} for run in runs)
    baseline = [variant for variant in variants if variant.name == BASELINE]
    again = [_run(bench, variant, workload, last=True) for variant in baseline for workload in variant.workloads]
    return [*runs[:first], *others, *runs[first:], *again]


def _run(bench: Bench, variant: Variant, workload: str, *, last: bool = False) -> _Run:
    return _Run(variant.name, workload, functools.partial(bench.child, variant.name, workload), last)


def _measure_all(runs: Sequence[_Run], started: float, limit: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    longest = 0.0
    # Without the baseline's second run the first proves nothing.
    kept = sum(run.is_kept_room_for for run in runs)
    for run in runs:
        spare = limit - (time.monotonic() - started)
        if not run.is_kept_room_for and spare < longest * (1 + kept):
            rows.append({"variant": run.name, "workload": run.workload, "failed": LEFT_OUT})
            continue
        say(f"{run.name}, {run.workload} rows …", "dim")
        began = time.monotonic()
        rows.append(run.measure())
        longest = max(longest, time.monotonic() - began)
    return rows


if __name__ == "__main__":
    run_main(main)
