"""The state the next step depends on: adapter, optimizer, schedule, loss scaling, random generators.

Tensors are written as safetensors and everything else as JSON: nothing here is pickled, so nothing that is loaded can
run code. Imports torch.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from kit.config.platforms import CUDA_PLATFORMS
from kit.modeling.model import portable_lora_config
from kit.run_directory.checkpoints import ResumeError
from kit.run_directory.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, OPTIMIZER, STATE
from kit.train.saved_form import check_optimizer, check_schedule, reading


@dataclass(frozen=True)
class RandomState:
    """Every generator that training draws from.

    Attributes:
        device: CUDA's first GPU or MPS; None on a CPU.
    """

    python: Any
    numpy: Any
    torch: Any
    device: Any

    @classmethod
    def capture(cls, platform: str) -> RandomState:
        """Read the generators, drawing nothing."""
        device = None
        if platform in CUDA_PLATFORMS:
            device = torch.cuda.get_rng_state()
        elif platform == "m4":
            device = torch.mps.get_rng_state()
        numbers = np.random.get_state()  # noqa: NPY002 - the generator that libraries draw from
        return cls(random.getstate(), numbers, torch.get_rng_state(), device)

    def restore(self, platform: str) -> None:
        """Put the generators where they were."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.torch)
        if self.device is not None:
            (torch.mps if platform == "m4" else torch.cuda).set_rng_state(self.device)

    def check(self) -> None:
        """Try the generators' states, and put the present ones back; each generator raises what it will."""
        present = RandomState.capture("cpu")
        try:
            replace(self, device=None).restore("cpu")
        finally:
            present.restore("cpu")

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON; generators' bytes as hexadecimal text."""
        kind, key, *rest = self.numpy
        return {
            "python": [self.python[0], list(self.python[1]), self.python[2]],
            "numpy": [kind, key.tobytes().hex(), *rest],
            "torch": self.torch.numpy().tobytes().hex(),
            "device": None if self.device is None else self.device.cpu().numpy().tobytes().hex(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> RandomState:
        """Read it back."""
        version, numbers, gauss = content["python"]
        kind, key, *rest = content["numpy"]
        key = np.frombuffer(bytes.fromhex(key), dtype=np.uint32).copy()
        device = content["device"]
        return cls(
            (version, tuple(numbers), gauss),
            (kind, key, *rest),
            _bytes_tensor(content["torch"]),
            None if device is None else _bytes_tensor(device),
        )


def _bytes_tensor(text: str) -> Any:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def save_state(folder: Path, trainer: Any, randomness: RandomState, *, evaluation_is_due: bool) -> None:
    """Write a trainer's state and the generators' after an optimizer step into an empty folder."""
    save_file(
        {name: weight.data.cpu().contiguous() for name, weight in _adapter(trainer.model)}, folder / ADAPTER_WEIGHTS
    )
    config = json.dumps(portable_lora_config(trainer.model), indent=2) + "\n"
    (folder / ADAPTER_CONFIG).write_text(config, encoding="utf-8")
    tensors: dict[str, Any] = {}
    scaler = getattr(trainer.accelerator, "scaler", None)
    state = {
        "step": trainer.state.global_step,
        "optimizer": _pack(trainer.optimizer.state_dict(), "optimizer", tensors),
        "scheduler": _pack(trainer.lr_scheduler.state_dict(), "scheduler", tensors),
        "scaler": None if scaler is None else _pack(scaler.state_dict(), "scaler", tensors),
        "random": randomness.as_json(),
        "evaluation_is_due": evaluation_is_due,
    }
    save_file(tensors, folder / OPTIMIZER)
    (folder / STATE).write_text(json.dumps(state, allow_nan=False) + "\n", encoding="utf-8")


def mark_evaluated(folder: Path, platform: str) -> None:
    """Mark a saved state as evaluated, with the generators after that."""
    path = folder / STATE
    state = json.loads(path.read_text(encoding="utf-8"))
    state |= {"random": RandomState.capture(platform).as_json(), "evaluation_is_due": False}
    path.write_text(json.dumps(state, allow_nan=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class SavedState:
    """A checkpoint's state, read.

    Attributes:
        evaluation_is_due: The last step's evaluation did not finish.
        randomness: The generators after it.
    """

    folder: Path
    step: int
    evaluation_is_due: bool
    randomness: RandomState

    @classmethod
    def read(cls, folder: Path, step: int) -> SavedState:
        """Read a checkpoint of a step that ``kit.run_directory.checkpoints.read`` found complete.

        Raises:
            ResumeError: The kit could not have saved it after that step.
        """
        with reading(folder):
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            if state["step"] != step or not isinstance(state["evaluation_is_due"], bool):
                raise ValueError(f"{STATE} is of step {state['step']!r}")
            randomness = RandomState.from_json(state["random"])
            randomness.check()
            return cls(folder, step, state["evaluation_is_due"], randomness)

    def restore_adapter(self, model: Any) -> None:
        """Put the adapter's values into a model that has one of the same shape.

        Raises:
            ResumeError: It has another shape or type, or holds NaN.
        """
        with reading(self.folder):
            saved = load_file(self.folder / ADAPTER_WEIGHTS)
        for name, weight in _adapter(model):
            value = saved.pop(name, None)
            if value is None or value.shape != weight.shape or value.dtype != weight.dtype:
                raise ResumeError(f"{self.folder}: its adapter has no {name} of {tuple(weight.shape)} {weight.dtype}")
            if not torch.isfinite(value).all():
                raise ResumeError(f"{self.folder}: its adapter contains NaN in {name}")
            weight.data.copy_(value)
        if saved:
            raise ResumeError(f"{self.folder}: its adapter has {next(iter(saved))}, which this run's adapter does not")

    def restore_training(self, trainer: Any) -> bool:
        """Put optimizer, schedule and loss scaling back.

        Returns:
            Whether the optimizer, asked for its state, gives back what was saved, bit for bit.

        Raises:
            ResumeError: They are not of this run's form.
        """
        with reading(self.folder):
            return self._restore_training(trainer)

    def _restore_training(self, trainer: Any) -> bool:
        state = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(self.folder / OPTIMIZER)
        fresh = [dict(group) for group in trainer.optimizer.param_groups]
        rates = list(trainer.lr_scheduler.base_lrs)
        optimizer, schedule = _unpack(state["optimizer"], tensors), _unpack(state["scheduler"], tensors)
        is_scaled = state["scaler"] is not None
        check_optimizer(optimizer, trainer.optimizer, is_scaled=is_scaled)
        check_schedule(schedule, trainer.lr_scheduler, self.step, is_scaled=is_scaled)
        trainer.optimizer.load_state_dict(optimizer)
        trainer.lr_scheduler.load_state_dict(schedule)
        scaler = getattr(trainer.accelerator, "scaler", None)
        if scaler is not None and state["scaler"] is not None:
            scaler.load_state_dict(_unpack(state["scaler"], tensors))
        again: dict[str, Any] = {}
        is_exact = _pack(trainer.optimizer.state_dict(), "optimizer", again) == state["optimizer"] and all(
            torch.equal(value, tensors[name]) for name, value in again.items()
        )
        _apply_changed_rates(trainer, fresh, rates)
        return is_exact


def _apply_changed_rates(trainer: Any, fresh: list[dict[str, Any]], rates: list[float]) -> None:
    """Let this run's configuration decide where it was allowed to change the schedule or the weight decay.

    A schedule's saved state holds the rate it gave for the next step, and nothing of its shape: whatever of it was
    changed (rate, kind, warmup, length), that rate would be the old one's.
    """
    schedule = trainer.lr_scheduler
    schedule.base_lrs = rates
    for group, before, rate, shape in zip(
        trainer.optimizer.param_groups, fresh, rates, schedule.lr_lambdas, strict=True
    ):
        if "weight_decay" in before:
            group["weight_decay"] = before["weight_decay"]
        group["initial_lr"] = rate
        group["lr"] = rate * shape(schedule.last_epoch)
    schedule._last_lr = [group["lr"] for group in trainer.optimizer.param_groups]  # noqa: SLF001 - what it was loaded with


def is_finite(model: Any) -> bool:
    """Tell whether every weight of the adapter is a number."""
    return all(bool(torch.isfinite(weight).all()) for _, weight in _adapter(model))


def _adapter(model: Any) -> list[tuple[str, Any]]:
    # As peft names them in a file, so that a checkpoint's folder is itself an adapter.
    named = ((name.replace(".default.", "."), weight) for name, weight in model.named_parameters())
    return sorted((name, weight) for name, weight in named if weight.requires_grad)


def _pack(value: Any, name: str, tensors: dict[str, Any]) -> Any:
    """Turn nested state into JSON, moving tensors into ``tensors`` under dotted names."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(inner, f"{name}.{key}", tensors)] for key, inner in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(inner, f"{name}.{position}", tensors) for position, inner in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name}: a {type(value).__name__} cannot be saved")


def _unpack(value: Any, tensors: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(inner, tensors) for key, inner in content}
    unpacked = [_unpack(inner, tensors) for inner in content]
    return unpacked if kind == "list" else tuple(unpacked)
