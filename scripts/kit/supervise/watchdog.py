"""Detect losses at which training has broken: not finite, stuck at zero, exploding."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import fmean

from kit.cli.failures import ExplainedError

# A rounding to zero happens once; three exact zeros in a row are labels that are all masked, or a broken kernel.
_ZEROS = 3
_WINDOW = 5


@dataclass(frozen=True)
class BadLoss:
    """One step that looks wrong.

    Attributes:
        kind: ``not_finite``, ``zero`` or ``exploding``.
    """

    kind: str
    step: int
    message: str


class BadLossError(ExplainedError):
    """The watchdog ended the run."""

    finding_id = "run.bad_loss"
    fix = (
        "check those rows (run.json, bad_losses); lower training.learning_rate (to resume: --allow-changed "
        "training.learning_rate), or set training.on_bad_loss=warn to continue"
    )

    def __init__(self, found: BadLoss, place: str) -> None:
        """Name what was found, and where the rows of that step are."""
        super().__init__(f"{found.message}; rows of that step: {place}")
        self.found = found


class Watchdog:
    """Judges every step's loss and gradient norm, in order.

    Exploding means: the mean of five losses in a row is above one and a half times what guessing evenly among all
    tokens would give, and above twice the best such mean before.
    """

    def __init__(self, vocabulary_size: int, *, judges_gradients: bool = True) -> None:
        """Start; ``judges_gradients`` is off with fp16, whose loss scaling meets infinite gradients normally."""
        self._ceiling = 1.5 * math.log(max(vocabulary_size, 2))
        self._judges_gradients = judges_gradients
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._best = math.inf
        self._zeros = 0

    def judge(self, step: int, loss: float, grad_norm: float | None) -> BadLoss | None:
        """Return what is wrong with a step, or None."""
        if not math.isfinite(loss):
            return BadLoss("not_finite", step, f"the loss is {loss} at step {step}")
        if self._judges_gradients and grad_norm is not None and not math.isfinite(grad_norm):
            return BadLoss("not_finite", step, f"the gradient norm is {grad_norm} at step {step}")
        self._zeros = self._zeros + 1 if loss == 0.0 else 0
        if self._zeros == _ZEROS:
            return BadLoss("zero", step, f"the loss has been exactly 0.0 for {_ZEROS} steps at step {step}")
        self._recent.append(loss)
        if len(self._recent) < _WINDOW:
            return None
        mean = fmean(self._recent)
        if mean > self._ceiling and mean > 2 * self._best:
            self._recent.clear()
            return BadLoss(
                "exploding", step, f"the loss diverges: {mean:.3g} over the last {_WINDOW} steps at step {step}"
            )
        self._best = min(self._best, mean)
        return None
