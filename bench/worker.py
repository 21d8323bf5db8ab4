"""The process that measures: it makes the base once and lends it to one measurement after the other. Imports torch.

Started by ``bench.conductor``: reads a request a line from standard input, ``{"measurement": NAME}``, and answers
each with one line on standard output, the result. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

BEGAN = time.perf_counter()

from bench.measurements import AGAIN
from bench.variants import KIT, SCALES, VARIANTS, Variant
from kit.cli.quiet_libraries import quiet_imports
from kit.cli.refusals import is_out_of_memory
from kit.machine.cuda_order import chosen_of
from kit.machine.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.variants import Scale
    from kit.modeling.resident import ResidentBase

OUT_OF_MEMORY = "out of memory"


def device_used_bytes() -> int | None:
    """Return what programs hold of the GPU that is measured, by its driver; None where there is none."""
    gpu = chosen_of(probe().nvidia)
    return gpu.memory_used_bytes if gpu else None


class Worker:
    """Measures on one device at one scale."""

    def __init__(self, scale: str, device: str, folder: Path) -> None:
        """Measure on ``cuda`` or ``cpu``; the base's configuration and tokenizer go to ``folder``."""
        self.scale: Scale = SCALES[scale]
        self.device, self.folder = device, folder
        self.used_before = device_used_bytes() if device == "cuda" else None
        self._resident: ResidentBase | None = None
        self.facts: dict[str, Any] = {}

    def measure(self, name: str) -> dict[str, Any]:
        """Measure one thing; a failure is a result that says why."""
        kind, _, which = name.partition("/")
        work: Callable[[str], dict[str, Any]] = getattr(self, f"_{kind.replace(' ', '_')}")
        result = self._tried(work, which)
        if self._resident is not None:
            from kit.modeling.resident import free

            free()  # an exception that is over holds nothing any more, and another process may measure next
        return result

    def _tried(self, work: Callable[[str], dict[str, Any]], which: str) -> dict[str, Any]:
        try:
            return work(which)
        except Exception as exc:  # noqa: BLE001 - whatever it raises, the next measurement goes on
            traceback.print_exc()
            if is_out_of_memory(exc):
                return {"failed": OUT_OF_MEMORY, "final": True}
            return {"failed": f"{type(exc).__name__}: {exc}"[:300]}

    @property
    def resident(self) -> ResidentBase:
        """The base, made at the first call."""
        if self._resident is None:
            self._resident = self._make_base()
        return self._resident

    def _make_base(self) -> ResidentBase:
        with quiet_imports():
            import torch

            from bench.memory_cases import base_job
            from bench.memory_measure import build_base
            from bench.random_base import write_random_config
            from kit.modeling.model import register_attention
            from kit.modeling.resident import ResidentBase
            from kit.stacks.stack import installed_stack
        register_attention(installed_stack().traits)
        self.facts = {"import_seconds": time.perf_counter() - BEGAN}
        if self.device == "cuda":
            small = torch.ones(8, 8, device="cuda")
            torch.cuda.synchronize()
            self.facts["context_bytes"] = self._outside_allocator()
            _ = small @ small
            torch.cuda.synchronize()
            self.facts["context_with_blas_bytes"] = self._outside_allocator()
        began = time.perf_counter()
        torch.manual_seed(0)
        write_random_config(self.scale.shape, self.folder, dtype=self._dtype())
        base = build_base(base_job(installed_stack().traits, self.scale.shape, self.device))
        if self.device == "cuda":
            torch.cuda.synchronize()
            self.facts["drawn_peak_bytes"] = torch.cuda.max_memory_allocated()
            torch.cuda.empty_cache()
            self.facts["base_bytes"] = torch.cuda.memory_allocated()
        self.facts["build_seconds"] = time.perf_counter() - began
        return ResidentBase(base)

    def _dtype(self) -> Any:
        import torch

        return torch.bfloat16 if self.device == "cuda" else torch.float32

    def _outside_allocator(self) -> int | None:
        import torch

        used = device_used_bytes()
        if used is None or self.used_before is None:
            return None
        return used - self.used_before - int(torch.cuda.memory_reserved())

    def _base(self, _which: str) -> dict[str, Any]:
        _ = self.resident
        return self.facts

    def _ceiling(self, _which: str) -> dict[str, Any]:
        from bench.clocks import measure_ceiling

        return measure_ceiling(self.device)

    def _memory(self, which: str) -> dict[str, Any]:
        from bench.memory_cases import cases
        from bench.memory_comparison import compare, refused
        from kit.plan.memory import plan_peak
        from kit.stacks.stack import installed_stack

        case = next(item for item in cases(installed_stack().traits, small=self.device != "cuda") if item.name == which)
        if self.device != "cuda":
            return compare(case).as_mapping()
        import torch

        doubled = case.job.settings.quantization.bnb_4bit_use_double_quant
        free_bytes = int(torch.cuda.mem_get_info()[0])
        torch.cuda.reset_peak_memory_stats()
        try:
            if doubled:
                with self.resident.borrowed(case.job.attention) as base:
                    found = self._compared(compare, case, base)
            else:  # another quantisation is another base
                found = self._compared(compare, case, None)
        except Exception as exc:
            if not is_out_of_memory(exc):
                raise
            return {**refused(case, free_bytes).as_mapping(), "failed": OUT_OF_MEMORY, "final": True}
        found["planned_bytes"] = plan_peak(case.job).peak_memory_bytes
        return found

    def _compared(self, compare: Callable[..., Any], case: Any, base: Any) -> dict[str, Any]:
        import torch

        found = dict(compare(case, base).as_mapping())
        found["reserved_bytes"] = int(torch.cuda.max_memory_reserved())
        found["outside_allocator_bytes"] = self._outside_allocator()
        found["device_used_bytes"] = device_used_bytes()
        return found

    def _variant(self, name: str) -> Variant:
        return next(variant for variant in VARIANTS if variant.name == name)

    def _speed(self, which: str) -> dict[str, Any]:
        resident = self.resident
        from bench.steps import Base, time_steps

        workload, name = which.removesuffix(AGAIN).split("/", maxsplit=1)
        variant = self._variant(name)
        with resident.borrowed(self._attention(variant, workload)) as model:
            return time_steps(variant, workload, self.scale, self.device, Base(self.folder, model))

    def _attention(self, variant: Variant, workload: str) -> str:
        from bench.steps import settings_and_plan
        from kit.stacks.stack import installed_stack

        if variant.name == VARIANTS[0].name:
            return "sdpa"  # what transformers takes by itself
        small = replace(self.scale, warm_up=1, steps=1)
        settings, _ = settings_and_plan(variant, workload, small, self.folder, self.device)
        return installed_stack().attention_of(settings, "h100" if self.device == "cuda" else "cpu")

    def _profile(self, workload: str) -> dict[str, Any]:
        resident = self.resident
        from bench.steps import Base, profile_steps

        name = "no checkpointing, dropout 0" if workload == "full" else "rows end to end, no checkpointing, dropout 0"
        variant = self._variant(name)
        with resident.borrowed(self._attention(variant, workload)) as model:
            return profile_steps(variant, workload, self.scale, self.device, Base(self.folder, model))

    def _evaluation(self, _which: str) -> dict[str, Any]:
        resident = self.resident
        from bench.use import evaluate

        with resident.borrowed(self._attention(self._variant(KIT), "full")) as model:
            return evaluate(self.scale, self.device, self.folder, model)

    def _generation(self, _which: str) -> dict[str, Any]:
        resident = self.resident
        from bench.use import generate

        with resident.borrowed(self._attention(self._variant(KIT), "full")) as model:
            return generate(self.scale, self.device, model)

    def _parity(self, _which: str) -> dict[str, Any]:
        from bench.commands import parity

        return parity()

    def _first_run(self, _which: str) -> dict[str, Any]:
        from bench.commands import first_run

        self._write_base()
        return first_run(self.scale, self.device, self.folder)

    def _loading(self, _which: str) -> dict[str, Any]:
        from bench.loading import load

        return load(self.scale, self.device, self.folder)

    def _peer(self, which: str) -> dict[str, Any]:
        from bench.commands import peer

        self._write_base()
        return peer(which, self.scale, self.folder)

    def _write_base(self) -> None:
        """Write the base's weights where they are not: on another machine of this name they may have been measured."""
        from bench.random_base import write_random_base

        write_random_base(self.scale.shape, self.folder, dtype=self._dtype(), device=self.device)


def main(argv: list[str]) -> int:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print
    scale, device, folder = argv
    worker = Worker(scale, device, Path(folder))
    for line in sys.stdin:
        result = worker.measure(json.loads(line)["measurement"])
        answers.write(json.dumps(result) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
