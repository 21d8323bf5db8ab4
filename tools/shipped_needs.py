"""What the shipped configurations take on each platform, as the plan says it: ``kit.machine.planned`` reads it.

Detection runs before anything is installed, so it cannot ask the plan; ``make docs`` writes this down for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.machine.facts import Gpu, Machine
from kit.machine.platforms import CONFIGS, EXAMPLES, Judgement
from kit.model.shape import MISTRAL_7B, ModelShape
from kit.plan.needs import loading_bytes, output_bytes, published_bytes
from kit.plan.run_plan import device_for, plan_run
from kit.plan.workload import full_length
from kit.stacks.registry import stack_run_on
from kit.stacks.stack import stack_named

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.plan.run_plan import RunPlan

# Of the model that the demo makes, which may not be there yet.
DEMO_SHAPE = ModelShape(259, 128, 384, 4, 4, 2, 32, 512)
# The slowest and the fastest of a platform that stands for many devices.
_ENDS = {"cuda": ("T4", "A100")}
_ANYWHERE = Machine("", "", "", "", 1, None, None, None, in_container=False)


def shipped() -> dict[str, dict[str, int]]:
    """Return what each platform's own configuration takes, by its facts."""
    return {platform: _shipped(platform) for platform in CONFIGS}


def _shipped(platform: str) -> dict[str, int]:
    settings = _settings(platform)
    shape = DEMO_SHAPE if platform == "cpu" else MISTRAL_7B
    kept = settings if platform != "cpu" else _settings("cuda")  # what Mistral-7B itself would take of a CPU's time
    fastest = replace(kept, training=replace(kept.training, gradient_checkpointing=False))
    ends = zip((kept, fastest), _ENDS.get(platform, ("", "")), strict=True)
    slow, fast = (_planned(choice, MISTRAL_7B, platform, gpu) for choice, gpu in ends)
    if slow.duration is None or fast.duration is None:
        raise ValueError(f"{platform}: Mistral-7B is no small model, and has a time")
    return {
        "device_bytes": _planned(settings, shape, platform).peak_memory_bytes,
        "loading_bytes": loading_bytes(shape),
        "weights_bytes": published_bytes(shape),
        "output_bytes": output_bytes(shape, settings)[1],
        "slow_tokens_per_second": max(1, round(slow.computed_tokens / slow.duration.slow_seconds)),
        "fast_tokens_per_second": max(1, round(fast.computed_tokens / fast.duration.fast_seconds)),
    }


def _settings(platform: str) -> Settings:
    return resolve(PROJECT_ROOT / CONFIGS[platform]).settings


def _planned(settings: Settings, shape: ModelShape, platform: str, gpu: str = "") -> RunPlan:
    """Plan the project's stated job on a platform as such, with the stack that its own command runs."""
    judgement = Judgement(platform, "", CONFIGS[platform], "", "", (), Gpu(0, gpu, 0) if gpu else None)
    stack = stack_named(stack_run_on(platform), platform, elsewhere=True)
    device = device_for(settings, judgement, _ANYWHERE, stack)
    return plan_run(settings, shape, device, full_length(settings, EXAMPLES))
