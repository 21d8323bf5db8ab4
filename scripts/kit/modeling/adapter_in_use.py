"""Put a saved adapter on a model, exactly: what the file holds is what answers, and nothing is left behind.

peft loads what fits and passes over the rest, and peft 0.7 rounds an adapter to its base's type. So what was loaded is
compared with the file, and a trained adapter that was saved is loaded back and compared with the one in memory. Imports
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from kit.adapter.portable import private_copy
from kit.cli.failures import ExplainedError
from kit.cli.refusals import is_out_of_memory
from kit.run_directory.history import RunError
from kit.run_directory.names import ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

_SAVED = "as_saved"  # the name it has beside the trained one while the two are compared
_BASE_LAYER = ".base_layer."


class SavedAdapterError(ExplainedError):
    """What was saved as the adapter is not what was trained."""

    finding_id = "run.adapter_lost"
    fix = (
        "report this as a bug; the last checkpoint holds the trained weights; another base, or lora.target_modules "
        "that are plain linear layers, may avoid it"
    )

    def __init__(self, difference: str) -> None:
        """Say where they differ, in one sentence."""
        super().__init__(f"the saved adapter differs from the trained one: {difference}; it was not kept")


def load_adapter(model: Any, folder: Path) -> Any:
    """Put a trained adapter on a base model, for use.

    Raises:
        RunError: It cannot be used safely, or does not fit this base.
    """
    with private_copy(folder) as copy:
        weights = load_file(copy / ADAPTER_WEIGHTS)
        _check_copied(model, weights, folder)
        try:
            # From the CPU: peft would take them to a GPU that the model is not on.
            model = PeftModel.from_pretrained(model, str(copy), torch_device="cpu")
        except (KeyError, RuntimeError, TypeError, ValueError) as exc:
            if is_out_of_memory(exc):
                raise
            raise RunError(f"{folder}: does not fit this base ({_first(exc)}); use the base it was trained on") from exc
    _restore_type(model, weights, "default")
    loaded = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False)
    given = {name: tensor for name, tensor in weights.items() if _BASE_LAYER not in name}
    difference = _difference(given, loaded)
    if difference:
        raise RunError(f"{folder}: does not fit this base: {difference}; use the base it was trained on")
    return model.eval()


def check_loads_back(model: Any, folder: Path) -> None:
    """Load a trained model's saved adapter beside the one in memory, compare the two, and take it off again.

    Raises:
        SavedAdapterError: What was saved is not what was trained.
    """
    weights_in_use = [weight for weight in model.parameters() if weight.requires_grad]
    trained = {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}
    try:
        with private_copy(folder) as copy:
            given = load_file(copy / ADAPTER_WEIGHTS)
            model.load_adapter(str(copy), _SAVED, torch_device="cpu")
        _restore_type(model, given, _SAVED)
        saved = {name: weight for name, weight in model.named_parameters() if _SAVED in name.split(".")}
        difference = _difference(_without_name(trained, "default"), _without_name(saved, _SAVED))
        difference = difference or _other_scaling(model)
    except Exception as exc:
        if isinstance(exc, OSError) or is_out_of_memory(exc):
            raise
        difference = f"it cannot be loaded ({_first(exc)})"
    finally:
        if _SAVED in model.peft_config:
            model.delete_adapter(_SAVED)
        # peft 0.7 casts the adapter that is there to the base's type as well.
        for weight, data in zip(weights_in_use, trained.values(), strict=True):
            weight.data = data
            weight.requires_grad = True
    if difference:
        raise SavedAdapterError(difference)


def _check_copied(model: Any, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Refuse weights of the base beside the adapter's that are not this base's: they would take their place."""
    own = dict(model.named_parameters())
    for name, tensor in weights.items():
        if _BASE_LAYER in name:
            there = own.get(name.removeprefix("base_model.model.").replace(_BASE_LAYER, "."))
            if there is None or not bool((there.cpu() == tensor.to(there.dtype)).all()):
                raise RunError(f"{folder}: holds {name}, which differs from this base; use the base it was trained on")


def _restore_type(model: Any, weights: dict[str, torch.Tensor], adapter: str) -> None:
    """Give an adapter float32 and load it again where peft has rounded it to the base's type."""
    halves = [
        getattr(module, half)[adapter]
        for module in model.modules()
        if isinstance(module, LoraLayer)
        for half in ("lora_A", "lora_B")
        if adapter in getattr(module, half)
    ]
    if any(half.weight.dtype.itemsize < weight.dtype.itemsize for half in halves for weight in weights.values()):
        for half in halves:
            half.float()
        set_peft_model_state_dict(model, weights, adapter_name=adapter)


def _without_name(weights: Mapping[str, torch.Tensor], adapter: str) -> dict[str, torch.Tensor]:
    return {".".join(part for part in name.split(".") if part != adapter): weight for name, weight in weights.items()}


def _difference(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str:
    """Say in a few words where two adapters differ; nothing where they are the same bit for bit."""
    lost, strange = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if lost:
        return f"{len(lost):,} of {len(wanted):,} of its weights are missing, such as {lost[0]}"
    if strange:
        return f"{len(strange):,} adapted modules have no weights, such as {strange[0]}"
    for name, weight in wanted.items():
        there = found[name].detach().cpu().float()
        if there.shape != weight.shape or not bool((there == weight.detach().cpu().float()).all()):
            return f"{name} has different values"
    return ""


def _other_scaling(model: Any) -> str:
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and module.scaling.get("default") != module.scaling.get(_SAVED):
            return f"{name} is scaled by {module.scaling.get(_SAVED)} instead of {module.scaling.get('default')}"
    return ""


def _first(exc: BaseException) -> str:
    lines = f"{exc}".strip().splitlines()
    # Without the fix, which is for somebody else's adapter.
    return lines[0].partition("; ")[0][:200] if lines else type(exc).__name__
