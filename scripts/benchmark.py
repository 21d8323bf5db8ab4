"""Measure what each lever is worth on this device: a random-weight Mistral-7B in NF4 on a GPU, a tiny one on a CPU.

Run as:
    python scripts/benchmark.py                       under ten minutes; trl's own defaults first and last
    python scripts/benchmark.py --scale small         the CPU's scale, which only shows that everything runs
    python scripts/benchmark.py --variants "kit defaults" "rows end to end"

Writes outputs/bench/gpu-SCALE.json and .png and prints the table. Nothing is downloaded; the 7B base is written once to
models/ (14.5 GB). Exit codes: 0 measured, 1 a variant failed other than by memory, 2 wrong use.
"""

from __future__ import annotations

from kit.interpreter import PROJECT_ROOT, use_project_python

if __name__ == "__main__":
    use_project_python()

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.bench.results import draw, markdown, with_ratios
from kit.bench.variants import BASE, BASELINE, CEILING, SCALES, VARIANTS, Variant
from kit.console import fail, say
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.run.provenance import describe_code
from kit.run.receipt import write_json
from kit.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Sequence

OUT_OF_MEMORY = "out of memory"
LEFT_OUT = "left out: no time"
_CHILD_LIMIT = 300  # seconds for one variant on one workload


class Bench:
    """Runs variants one after the other, each in a process of its own."""

    def __init__(self, scale: str, device: str, base: Path) -> None:
        """Measure at ``scale`` on ``device``, with the random base in ``base``."""
        self.scale, self.device, self.base = scale, device, base
        self.broken = False

    def child(self, variant: str, workload: str = "") -> dict[str, Any]:
        """Run one child; a failure is a row that says why."""
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            spec = {
                "variant": variant,
                "workload": workload,
                "scale": self.scale,
                "device": self.device,
                "base": str(self.base),
                "result": str(result),
            }
            (Path(folder) / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
            command = [sys.executable, "-m", "kit.bench.one_row", f"{folder}/spec.json"]
            environment = {
                **os.environ,
                "PYTHONPATH": str(PROJECT_ROOT / "scripts"),
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
            }
            try:
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=_CHILD_LIMIT, check=False
                )
            except subprocess.TimeoutExpired:
                self.broken = True
                return {"variant": variant, "workload": workload, "failed": f"stopped after {_CHILD_LIMIT} s"}
            if done.returncode == 0:
                return dict(json.loads(result.read_text(encoding="utf-8")))
        if "OutOfMemoryError" in done.stderr:
            return {"variant": variant, "workload": workload, "failed": OUT_OF_MEMORY}
        self.broken = True
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"variant": variant, "workload": workload, "failed": reason[:200]}


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
    bench = Bench(scale, device, options.base or Path("models") / f"bench-{scale}-{device}")
    say(f"{judgement.platform}: {judgement.reason}; a random base in {bench.base}", "bold")
    started = time.monotonic()
    for step in (BASE, CEILING):
        outcome = bench.child(step)
        if "failed" in outcome:
            return fail(f"{step}: {outcome['failed']}", "free disk or memory, then run it again")
    ceiling = outcome["matmul_flop_per_second"]
    measured = _measure_all(bench, _chosen(options.variants, device), started, options.limit)
    rows = with_ratios(measured, ceiling, SCALES[scale])
    folder = Path("outputs/bench")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "schema_version": 1,
        "command": ["scripts/benchmark.py", *(argv if argv is not None else sys.argv[1:])],
        "platform": judgement.platform,
        "device": judgement.reason,
        "versions": installed_stack().versions,
        "matmul_flop_per_second": ceiling,
        "seconds": round(time.monotonic() - started, 1),
        **describe_code(),
    }
    write_json(folder / f"gpu-{scale}.json", {**facts, "rows": rows})
    draw(rows, folder / f"gpu-{scale}.png")
    print(markdown(rows))
    print(f"matrix product: {ceiling / 1e12:.2f} TFLOP/s; written: {folder}/gpu-{scale}.json and .png")
    return 1 if bench.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, help="7b on a GPU, small on a CPU")
    parser.add_argument("--variants", nargs="*", choices=[variant.name for variant in VARIANTS], metavar="NAME")
    parser.add_argument("--limit", type=float, default=540, metavar="SECONDS", help="start no variant after this")
    parser.add_argument("--base", type=Path, help="where the random base is kept")
    return parser


def _chosen(names: Sequence[str] | None, device: str) -> list[Variant]:
    wanted = [variant for variant in VARIANTS if not names or variant.name in names]
    left_out = [variant.name for variant in wanted if variant.cuda_only and device != "cuda"]
    if left_out:
        say(f"left out, because they need an NVIDIA GPU: {', '.join(left_out)}", "yellow")
    return [variant for variant in wanted if variant.name not in left_out]


def _measure_all(bench: Bench, variants: Sequence[Variant], started: float, limit: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    longest = 0.0
    baseline = [variant for variant in variants if variant.name == BASELINE]
    for position, variant in enumerate([*variants, *baseline]):
        is_last = position == len(variants)
        for workload in variant.workloads:
            spare = limit - (time.monotonic() - started)
            # Room is kept for the baseline's second run, without which the first proves nothing.
            if not is_last and spare < longest * (1 + 2 * len(baseline)):
                rows.append({"variant": variant.name, "workload": workload, "failed": LEFT_OUT})
                continue
            say(f"{variant.name}, {workload} rows …", "dim")
            began = time.monotonic()
            rows.append(bench.child(variant.name, workload))
            longest = max(longest, time.monotonic() - began)
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
