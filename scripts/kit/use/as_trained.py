"""Compare an evaluation with the run's own last one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kit.cli.console import say

if TYPE_CHECKING:
    from kit.use.evaluation import Evaluation
    from kit.use.loading import LoadChoice


def elsewhere(choice: LoadChoice) -> list[str]:
    """Return a sentence for each difference in compute from the run: it rounds differently."""
    from kit.modeling.compute import describe_compute

    receipt = choice.run.receipt
    then, now = receipt.get("compute"), describe_compute(choice.platform)
    said = []
    if receipt.get("stack", choice.stack.name) != choice.stack.name:
        said.append(f"trained on the {receipt['stack']} stack, this is the {choice.stack.name} one")
    if isinstance(then, dict):
        said += [f"{key} is {now[key]} here, was {then[key]}" for key in now if then.get(key, now[key]) != now[key]]
    return said


def compare_with_training(evaluation: Evaluation) -> None:
    """Report whether the loss equals the run's last, within rounding (``loss_rounding``)."""
    facts, measured = evaluation.facts, evaluation.adapter.losses.mean
    recorded, rounding = facts["run_eval_loss"], facts["loss_rounding"]
    if recorded is None:
        return
    differs = "; ".join([*facts["remarks"], *facts["elsewhere"]])
    if abs(measured - recorded) <= rounding:
        same = f"the same within rounding; {differs}" if differs else "the same"
        say(f"the run's own last evaluation was {recorded:.4f}: {same}", "dim")
        return
    why = differs or "the base, the adapter or a package changed since the run (make verify checks the files)"
    digits = max(4, 1 - math.floor(math.log10(abs(measured - recorded))))
    say(
        f"note: the run's own last evaluation was {recorded:.{digits}f}, this one is {measured:.{digits}f}, and "
        f"rounding explains {rounding:.1g}: {why}",
        "yellow",
    )
