"""torch's kernel for rows of any length computes what eager attention does, for every mask, or refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

torch = pytest.importorskip("torch", reason="needs the libraries: make setup")
if installed_stack().name != "current":
    pytest.skip("transformers has no place for another kernel before 5", allow_module_level=True)

from transformers import MistralConfig, MistralForCausalLM  # noqa: E402

from kit.data.encoding import IGNORE_INDEX  # noqa: E402
from kit.modeling import torch_attention  # noqa: E402
from kit.train.performance import PaddingFreeCollator  # noqa: E402

LENGTHS = (7, 5, 9)
NEW, OLD = ("window_size", "scale", "enable_gqa"), ("is_causal",)


def _exact(query: Any, key: Any, value: Any, begins: Any, past_begins: Any, *_longest: int, **options: Any) -> Any:
    """What the kernel is documented to compute, row by row: the last query meets the last key."""
    left, right = (-1, 0) if options.get("is_causal") else options["window_size"]
    assert right == 0
    size, groups = query.shape[-1], query.shape[1] // key.shape[1]
    assert options.get("enable_gqa", groups > 1) == (groups > 1)
    rows = []
    for row in range(len(begins) - 1):
        asked = query[begins[row] : begins[row + 1]].transpose(0, 1)
        keys, values = (
            tensor[past_begins[row] : past_begins[row + 1]].transpose(0, 1).repeat_interleave(groups, 0)
            for tensor in (key, value)
        )
        ahead = torch.arange(keys.shape[1]) - (torch.arange(asked.shape[1]) + keys.shape[1] - asked.shape[1])[:, None]
        hidden = (ahead > 0) | ((ahead < -left) if left >= 0 else False)
        scores = asked @ keys.transpose(1, 2) * (options.get("scale") or size**-0.5)
        rows.append((scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values).transpose(0, 1))
    return torch.cat(rows)


@pytest.fixture(params=[NEW, OLD], ids=["torch 2.15", "torch 2.10"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The kernel, which needs CUDA, as one that is exact and takes float32."""
    monkeypatch.setattr(torch_attention, "varlen_attn", _exact)
    monkeypatch.setattr(torch_attention, "_KNOWN", frozenset(request.param))
    monkeypatch.setattr(torch_attention, "_TYPES", (torch.float32, torch.bfloat16))
    torch_attention.register()
    known: tuple[str, ...] = request.param
    return known


def _models(**changes: Any) -> Iterator[Any]:
    """The same small model twice: with the kernel, and with eager attention."""
    for attention in ("varlen", "eager"):
        torch.manual_seed(0)
        config = MistralConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, attn_implementation=attention,
            **{"sliding_window": None, "use_cache": False, "pad_token_id": 0, **changes},
        )  # fmt: skip
        yield MistralForCausalLM(config)


def _rows() -> list[list[int]]:
    torch.manual_seed(1)
    return [torch.randint(1, 64, (length,)).tolist() for length in LENGTHS]


def _padded(side: str) -> dict[str, Any]:
    batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in _rows():
        fill = max(LENGTHS) - len(row)
        for name, values, padding in (
            ("input_ids", row, 0), ("attention_mask", [1] * len(row), 0),
            ("labels", [IGNORE_INDEX, *row[1:]], IGNORE_INDEX),  # nothing is predicted from padding
        ):  # fmt: skip
            batch[name].append([padding] * fill + values if side == "left" else values + [padding] * fill)
    return {name: torch.tensor(values) for name, values in batch.items()}


def _end_to_end() -> dict[str, Any]:
    return PaddingFreeCollator()([{"input_ids": row, "labels": row} for row in _rows()])


def _inputs(case: str) -> dict[str, Any]:
    if case == "whole":
        ids = torch.tensor([row[: min(LENGTHS)] for row in _rows()])
        return {"input_ids": ids, "labels": ids}
    if case in {"left", "right"}:
        return _padded(case)
    batch = _end_to_end()
    names = ("input_ids", "labels", "position_ids")
    return batch if case == "end to end" else {name: batch[name] for name in names}


def _loss_and_gradients(model: Any, inputs: dict[str, Any]) -> tuple[float, list[Any]]:
    loss = model(**inputs).loss
    loss.backward()
    return float(loss.detach()), [parameter.grad for parameter in model.parameters()]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("case", ["whole", "right", "left", "end to end", "positions alone"])
def test_losses_and_gradients_are_those_of_eager_attention(case: str) -> None:
    (loss, gradients), (eager_loss, eager_gradients) = (
        _loss_and_gradients(model.train(), _inputs(case)) for model in _models()
    )
    assert loss == pytest.approx(eager_loss, abs=1e-6)
    for ours, theirs in zip(gradients, eager_gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.usefixtures("kernel")
def test_a_row_laid_end_to_end_never_sees_its_neighbours() -> None:
    model = next(_models()).eval()
    with torch.no_grad():
        together = model(**_end_to_end()).logits[0].split(list(LENGTHS))
        for row, found in zip(_rows(), together, strict=True):
            assert torch.allclose(found, model(input_ids=torch.tensor([row])).logits[0], atol=1e-5)


@pytest.mark.usefixtures("kernel")
def test_answers_grow_with_a_cache_as_with_eager_attention() -> None:
    prompts = _padded("left")
    del prompts["labels"]
    how = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    ours, eager = (model.eval().generate(**prompts, **how) for model in _models(use_cache=True))
    assert ours.sequences.tolist() == eager.sequences.tolist()
    for found, expected in zip(ours.logits, eager.logits, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("case", ["right", "left", "end to end", "positions alone"])
def test_a_window_is_computed_or_refused(case: str, kernel: tuple[str, ...]) -> None:
    models = list(_models(sliding_window=6))
    if kernel == OLD:
        with pytest.raises(ValueError, match=r"needs torch 2\.11 for the model"):
            models[0](**_inputs(case))
        return
    loss, eager_loss = (float(model(**_inputs(case)).loss.detach()) for model in models)
    assert loss == pytest.approx(eager_loss, abs=1e-6)


@pytest.mark.usefixtures("kernel")
def test_a_window_that_no_row_reaches_hides_nothing() -> None:
    loss, eager_loss = (float(model(**_inputs("right")).loss.detach()) for model in _models(sliding_window=9))
    assert loss == pytest.approx(eager_loss, abs=1e-6)


@pytest.mark.usefixtures("kernel")
def test_under_autocast_all_three_have_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotary embeddings leave queries and keys in float32 where the model is, and values in autocast's type."""
    seen = []

    def noting(*tensors: Any, **options: Any) -> Any:
        seen.append({tensor.dtype for tensor in tensors[:3]})
        return _exact(*tensors, **options)

    monkeypatch.setattr(torch_attention, "varlen_attn", noting)
    with torch.autocast("cpu", torch.bfloat16):
        loss = next(_models())(**_inputs("right")).loss
    assert seen == [{torch.bfloat16}] * 2
    assert loss.isfinite()


def _call(**changes: Any) -> Any:
    tensor = torch.zeros(1, 2, 3, 8)
    given = {"query": tensor, "key": tensor, "value": tensor, "attention_mask": None, **changes}
    return torch_attention.varlen_attention(None, **given)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dropout": 0.1}, "has no attention dropout"),
        ({"softcap": 30.0}, "does not support softcap"),
        ({"attention_mask": torch.zeros(1, 1, 3, 3)}, "takes only a padding mask"),
        ({"attention_mask": torch.ones(1, 2)}, "takes only a padding mask"),
        ({"cu_seq_lens_q": torch.tensor([0, 3]), "attention_mask": torch.ones(1, 3)}, "without a padding mask"),
        ({"cu_seq_lens_q": torch.tensor([0, 3]), "key": torch.zeros(1, 2, 4, 8)}, "without a cache"),
        ({"query": torch.zeros(1, 2, 3, 8, dtype=torch.float64)}, "takes bfloat16 or float16"),
    ],
)
def test_what_the_kernel_cannot_compute_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _call(**changes)


def test_another_scaling_is_computed_or_refused(kernel: tuple[str, ...]) -> None:
    if kernel == OLD:
        with pytest.raises(ValueError, match="no custom scaling"):
            _call(scaling=1.0)
    else:
        assert _call(scaling=1.0)[0].shape == (1, 3, 2, 8)


@pytest.mark.usefixtures("kernel")
def test_packed_rows_beside_others_are_refused() -> None:
    with pytest.raises(ValueError, match="takes causal rows"):
        next(_models())(
            input_ids=torch.tensor([[1, 2, 3], [4, 5, 6]]), position_ids=torch.tensor([[0, 1, 0], [0, 1, 2]])
        )


def test_without_the_kernel_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface

    monkeypatch.setattr(torch_attention, "varlen_attn", None)
    monkeypatch.setattr(AttentionInterface, "register", lambda *_: pytest.fail("registered"))
    torch_attention.register()


@pytest.mark.gpu
@pytest.mark.parametrize("case", ["whole", "right", "left", "end to end", "positions alone"])
def test_the_kernel_itself_agrees_with_eager_attention(case: str) -> None:
    """In bfloat16, with a head size that FlashAttention has kernels for."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("needs an NVIDIA GPU of compute capability 8.0 or later")
    torch_attention.register()
    inputs = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in _inputs(case).items()}
    (loss, gradients), (eager_loss, eager_gradients) = (
        _loss_and_gradients(model.train().to("cuda", torch.bfloat16), inputs) for model in _models(head_dim=64)
    )
    assert loss == pytest.approx(eager_loss, rel=1e-2)
    for ours, theirs in zip(gradients, eager_gradients, strict=True):
        assert torch.nn.functional.cosine_similarity(ours.float().flatten(), theirs.float().flatten(), 0) > 0.99
