"""All that the next step depends on survives being written and read, to the last bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.stacks.stack import installed_stack

pytestmark = pytest.mark.slow
torch: Any = pytest.importorskip("torch", reason="needs the libraries: make setup")
numpy: Any = pytest.importorskip("numpy")


def _draw() -> list[Any]:
    legacy = [float(numpy.random.random()), float(numpy.random.standard_normal())]
    return [random.random(), random.gauss(0, 1), *legacy, *torch.randn(3).tolist()]  # noqa: S311 - no secret


def test_random_generators_go_on_where_they_were_through_json() -> None:
    from kit.train.state import RandomState

    _draw()  # half of a pair of normal numbers is kept by two of the generators
    state = json.loads(json.dumps(RandomState.capture("cpu").as_json()))
    expected = [_draw() for _ in range(3)]
    RandomState.from_json(state).restore("cpu")
    assert [_draw() for _ in range(3)] == expected


def test_capturing_draws_nothing() -> None:
    from kit.train.state import RandomState

    RandomState.capture("cpu").restore("cpu")
    state = RandomState.capture("cpu")
    expected = _draw()
    state.restore("cpu")
    RandomState.capture("cpu")
    assert _draw() == expected


def test_nested_state_comes_back_as_it_was() -> None:
    from kit.train.state import _pack, _unpack

    shared = torch.arange(4.0)
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": shared}, 1: {"exp_avg": shared, "none": None}}
    group = {"lr": 1e-5, "betas": (0.9, 0.999), "params": [0, 1], "fused": None, "name": "a"}
    state = {"state": moments, "param_groups": [group]}
    tensors: dict[str, Any] = {}
    packed = json.loads(json.dumps(_pack(state, "optimizer", tensors)))
    again = _unpack(packed, tensors)
    assert again["param_groups"] == state["param_groups"]
    assert isinstance(again["param_groups"][0]["betas"], tuple)
    assert torch.equal(again["state"][1]["exp_avg"], shared)
    assert again["state"][0]["step"].dtype == torch.float32


RATE, STEPS, DONE = 2e-4, 40, 12


def _schedule(kind: str, *, rate: float = RATE, warmup: int = 4, steps: int = STEPS) -> tuple[Any, Any]:
    from transformers import get_scheduler

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=rate)
    return optimizer, get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps)


def _rates(optimizer: Any, schedule: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        for weight in optimizer.param_groups[0]["params"]:
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("cosine", {}),
        ("cosine", {"rate": 1e-5}),
        ("constant", {}),
        ("linear", {}),
        ("constant_with_warmup", {"warmup": 30}),
        ("cosine_with_restarts", {"steps": 100}),
        ("linear", {"rate": 7e-5, "warmup": 0, "steps": 200}),
    ],
)
def test_whatever_of_the_schedule_was_changed_the_first_resumed_step_has_its_rate(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    """It had the old schedule's where anything but the rate itself was changed."""
    from kit.train.state import OPTIMIZER, STATE, RandomState, SavedState, _pack, save_file

    optimizer, schedule = _schedule("cosine")
    _rates(optimizer, schedule, DONE)
    tensors: dict[str, Any] = {}
    saved = {
        "optimizer": _pack(optimizer.state_dict(), "optimizer", tensors),
        "scheduler": _pack(schedule.state_dict(), "scheduler", tensors),
        "scaler": None,
    }
    save_file({**tensors, "any": torch.ones(1)}, tmp_path / OPTIMIZER)
    (tmp_path / STATE).write_text(json.dumps(saved), encoding="utf-8")
    optimizer, schedule = _schedule(kind, **changes)
    trainer = SimpleNamespace(optimizer=optimizer, lr_scheduler=schedule, accelerator=SimpleNamespace())
    SavedState(tmp_path, DONE, False, RandomState.capture("cpu")).restore_training(trainer)
    assert schedule.get_last_lr() == [optimizer.param_groups[0]["lr"]]
    assert _rates(optimizer, schedule, 5) == _rates(*_schedule(kind, **changes), DONE + 5)[DONE:]


def test_what_cannot_be_saved_is_refused_by_name() -> None:
    from kit.train.state import _pack

    with pytest.raises(TypeError, match=r"optimizer\.a"):
        _pack({"a": object()}, "optimizer", {})


@pytest.mark.skipif("cpu" not in installed_stack().traits.four_bit_platforms, reason="this stack has no 4-bit on a CPU")
def test_evaluating_does_not_repack_a_4_bit_base(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with AVX512-BF16 bitsandbytes would, and training went on without part of its gradient."""
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    from kit.modeling.model import load_base_model

    overrides = {"model.model_name_or_path": str(tiny_base)}
    model = load_base_model(resolve(PROJECT_ROOT / "configs/training_config_demo.yaml", overrides).settings, "cpu")
    layers = [module for module in model.modules() if isinstance(module, modules.Linear4bit)]
    before = [layer.weight.data.clone() for layer in layers]
    with torch.no_grad():
        model.eval()(input_ids=torch.tensor([[1, 2, 3]]))
    assert layers
    assert all(torch.equal(layer.weight.data, saved) for layer, saved in zip(layers, before, strict=True))
    assert not any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers)
