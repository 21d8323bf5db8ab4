"""``training.padding_free: auto``: whether rows are laid end to end, decided once before a run by its data's lengths.

Until then, and wherever nobody decides, such a run's settings say false. Afterwards they say what it became, and the
key's origin says why: all that compares runs or makes one again has the decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.config.platforms import CUDA_PLATFORMS
from kit.plan.rows import workloads_for
from kit.stacks.attention import problem_of
from kit.stacks.stack import VARIABLE_LENGTH

if TYPE_CHECKING:
    from kit.config.resolve import Resolved
    from kit.config.settings import Settings
    from kit.data.token_rows import TokenRows
    from kit.machine.platforms import Judgement
    from kit.stacks.stack import Stack

KEY = "training.padding_free"
AUTO = "auto"
# On an H100 padded rows took 1.41 times as long as rows end to end where 20 % of the computed tokens were padding, and
# 1.30 times where 8 % were: a mask also costs SDPA its fast kernel. Less was not measured.
_WORTHWHILE = 0.05
_MARK = ", auto: "
# Kernels it was measured with, or that are older than the kit: the others are for who asks for them.
_SUPPORTED = VARIABLE_LENGTH - {"flex_attention", "flash_attention_4"}


def decided(resolved: Resolved, judgement: Judgement, stack: Stack, rows: TokenRows | None) -> Resolved:
    """Return a configuration in which ``auto`` is true or false; any other as it is.

    ``rows`` are None where their lengths are not known.
    """
    if resolved.value(KEY) != AUTO:
        return resolved
    is_padding_free, reason = _decide(resolved, judgement, stack, rows)
    return resolved.with_changes({KEY: is_padding_free}, {KEY: f"{resolved.origins[KEY]}{_MARK}{reason}"})


def _decide(resolved: Resolved, judgement: Judgement, stack: Stack, rows: TokenRows | None) -> tuple[bool, str]:
    settings = resolved.settings
    with_it = settings.with_changes({KEY: True})
    attention = stack.attention_of(with_it, judgement.platform)
    blocker = _blocker(attention, with_it, judgement, stack)
    if blocker or not rows:
        return False, blocker or "the rows' lengths are unknown"
    work = workloads_for(settings, rows)[0](settings)
    share = 1 - work.tokens / work.computed_tokens
    padding = f"{share:.0%} of the computed tokens would be padding"
    if share < _WORTHWHILE:
        return False, f"{padding}, less than {_WORTHWHILE:.0%}"
    return True, f"{padding}, and {attention} needs no mask for rows of any length"


def _blocker(attention: str, settings: Settings, judgement: Judgement, stack: Stack) -> str:
    platform, gpu = judgement.platform, judgement.gpu
    if platform not in CUDA_PLATFORMS:
        return f"it needs an NVIDIA GPU; this platform is {platform}"
    if not stack.traits.padding_free:
        return "it needs the current stack"
    if attention not in _SUPPORTED:
        return f"auto does not use it with {attention} attention"
    problem = problem_of(attention, settings, stack, platform, gpu.compute_capability if gpu else None)
    return f"{attention} {problem}" if problem else ""


def is_decided(resolved: Resolved) -> bool:
    """Tell whether the configuration left it to the data, and that is done."""
    return _MARK in resolved.origins[KEY]


def decision(resolved: Resolved) -> str:
    """Say in a sentence what ``auto`` became and why; empty where it was not asked for, or is not decided."""
    if not is_decided(resolved):
        return ""
    value = "true" if resolved.settings.training.padding_free else "false"
    return f"{KEY} is auto, and {value} here: {resolved.origins[KEY].partition(_MARK)[2]}"
