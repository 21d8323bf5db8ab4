"""Each lever takes the same steps as the plain run: same losses, same gradients, same adapter."""

from __future__ import annotations

import math
import random
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.data.encoding import IGNORE_INDEX, EncodedRow
from kit.data.token_rows import TokenRows
from small_base import change_json, read_weights, write_weights

torch = pytest.importorskip("torch", reason="needs the libraries: make setup")

STEPS = 3


def _ragged_rows(count: int = 24, longest: int = 60) -> TokenRows:
    draw = random.Random(0)  # noqa: S311 - test rows
    rows = []
    for line in range(1, count + 1):
        length = draw.choice((3, 5, 9, 20, longest))
        ids = [draw.randrange(10, 90) for _ in range(length)]
        prompt = max(1, length // 3)
        rows.append(EncodedRow(ids, [IGNORE_INDEX] * prompt + ids[prompt:], line, length))
    return TokenRows.of(rows)


def _train(base: Path, output: Path, **training: Any) -> tuple[list[float], dict[str, Any], int]:
    """Train a few steps in this process; return the losses, the adapter, and the padded tokens that were computed."""
    from kit.modeling.model import attach_adapter, load_base_model
    from kit.train.trainer import build_trainer

    changes: dict[str, Any] = {
        "model.model_name_or_path": str(base),
        "lora.lora_dropout": 0.0,
        "training.output_dir": str(output),
        "training.max_steps": STEPS,
        "training.per_device_train_batch_size": 4,
        "training.gradient_accumulation_steps": 2,
        "training.warmup_ratio": 0.0,
        "training.sort_within_update": False,
        **{f"training.{key}": value for key, value in training.items()},
    }
    settings = resolve(PROJECT_ROOT / "configs/training_config_demo.yaml", changes).settings
    plan = order_batches(settings, _ragged_rows())
    model = attach_adapter(load_base_model(settings, "cpu"), settings)
    trainer: Any = build_trainer(model, settings, plan, "cpu", [])
    seen = 0
    collate = trainer.data_collator

    def counting(rows: Any) -> Any:
        nonlocal seen
        batch = collate(rows)
        seen += batch["input_ids"].numel()
        return batch

    trainer.data_collator = counting
    trainer.train()
    adapter = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    return [float(loss) for loss in trainer.step_losses], adapter, seen


@pytest.fixture(scope="module")
def plain(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], dict[str, Any], int]:
    return _train(tiny_base, tmp_path_factory.mktemp("plain"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lever", "exact"),
    [
        ({"gradient_checkpointing": True}, True),
        ({"gradient_checkpointing": True, "gradient_checkpointing_every_n_layers": 2}, True),
        ({"padding_free": True}, False),
        ({"sort_within_update": True}, False),
        ({"sort_within_update": True, "padding_free": True, "gradient_checkpointing": True}, False),
        ({"optim": "adamw_torch_fused"}, False),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_lever_takes_the_same_steps(
    lever: dict[str, Any], exact: bool, plain: Any, tiny_base: Path, tmp_path: Path
) -> None:
    losses, adapter, _ = _train(tiny_base, tmp_path, **lever)
    tolerance = 0.0 if exact else 2e-6
    assert losses == pytest.approx(plain[0], abs=tolerance or 1e-12)
    for name, weight in plain[1].items():
        assert torch.allclose(adapter[name], weight, rtol=0, atol=tolerance * 50), name


@pytest.mark.slow
def test_compiled_layers_take_the_same_steps(tiny_base: Path, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: torch compiles for the CPU with it")
    # One layer: compiling is most of the time.
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    change_json(base / "config.json", num_hidden_layers=1)
    tensors = read_weights(base / "model.safetensors")
    write_weights(base, {name: value for name, value in tensors.items() if not re.search(r"\.layers\.[1-9]", name)})
    changes = {"max_steps": 2, "gradient_accumulation_steps": 1}
    plain_losses, _, _ = _train(base, tmp_path / "plain", **changes)
    losses, _, _ = _train(base, tmp_path / "compiled", torch_compile=True, **changes)
    assert losses == pytest.approx(plain_losses, abs=2e-6)


@pytest.mark.slow
def test_both_ways_of_saving_padding_save_it(plain: Any, tiny_base: Path, tmp_path: Path) -> None:
    _, _, end_to_end = _train(tiny_base, tmp_path / "a", padding_free=True)
    _, _, sorted_rows = _train(tiny_base, tmp_path / "b", sort_within_update=True)
    assert end_to_end == sum(len(row.input_ids) for row in _ragged_rows())
    assert end_to_end < sorted_rows < plain[2]


def test_rows_laid_end_to_end_keep_their_own_positions_and_never_predict_a_neighbour() -> None:
    from kit.train.performance import PaddingFreeCollator

    batch = PaddingFreeCollator()(
        [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, {"input_ids": [8, 9], "labels": [IGNORE_INDEX, 9]}]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORE_INDEX, 6, 7, IGNORE_INDEX, 9]]
    for side in "qk":
        assert batch[f"cu_seq_lens_{side}"].tolist() == [0, 3, 5]
        assert batch[f"max_length_{side}"] == 3


@pytest.mark.parametrize(("window", "length", "left"), [(4096, 4096, None), (4096, 8192, 4096), (None, 64, None)])
def test_a_sliding_window_is_dropped_only_where_no_row_reaches_it(
    window: int | None, length: int, left: int | None
) -> None:
    from kit.train.performance import leave_out_idle_window

    config = SimpleNamespace(sliding_window=window)
    leave_out_idle_window(config, length)
    assert config.sliding_window == left


def test_a_window_that_only_some_layers_have_stays() -> None:
    """transformers asks for it whatever the length; without it a model with windows in some layers does not start."""
    from kit.train.performance import leave_out_idle_window

    some = SimpleNamespace(sliding_window=256, layer_types=["full_attention", "sliding_attention"])
    none = SimpleNamespace(sliding_window=256, layer_types=["full_attention"])
    for config in (some, none):
        leave_out_idle_window(config, 128)
    assert (some.sliding_window, none.sliding_window) == (256, None)


def test_sorting_puts_the_longest_micro_batch_first_and_changes_no_update() -> None:
    rows = _ragged_rows()
    changes = {"training.per_device_train_batch_size": 2, "training.gradient_accumulation_steps": 4}
    demo = PROJECT_ROOT / "configs/training_config_demo.yaml"
    as_drawn = order_batches(resolve(demo, {**changes, "training.sort_within_update": False}).settings, rows)
    arranged = order_batches(resolve(demo, {**changes, "training.sort_within_update": True}).settings, rows)
    for step in range(as_drawn.steps):
        begin, end = step * as_drawn.batch_size, (step + 1) * as_drawn.batch_size
        assert sorted(arranged.order[begin:end]) == sorted(as_drawn.order[begin:end])
        lengths = [0 if index < 0 else len(rows[index].input_ids) for index in arranged.order[begin:end]]
        assert lengths == sorted(lengths, reverse=True)
    assert arranged.trainable_tokens == as_drawn.trainable_tokens
    assert math.isclose(arranged.tokens[-1], as_drawn.tokens[-1])
