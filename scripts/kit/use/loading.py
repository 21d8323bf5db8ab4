"""Choose and check a run's base and adapter before torch is imported, then load them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.adapter.portable import read_portable
from kit.cli.quiet_libraries import quiet_imports
from kit.config.platforms import CUDA_PLATFORMS
from kit.data.chat_tokenizer import ChatTokenizer
from kit.machine.one_device import use_judged_device
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.model.families import completed
from kit.model.files import ModelFileError
from kit.model.shape import shape_in
from kit.model.usability import require_whole
from kit.run_directory.history import NEWEST, Run, RunError, find_run, read_run
from kit.run_directory.names import ADAPTER_WEIGHTS
from kit.stacks.stack import FLASH

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from kit.config.settings import Settings
    from kit.stacks.stack import Stack


@dataclass(frozen=True)
class LoadChoice:
    """What to load, and how it differs from training.

    Attributes:
        adapter: The run's own folder, or the given one.
        platform: Where to: ``h100``, ``cuda``, ``m4`` or ``cpu``.
        context_length: The most tokens the base can hold.
        remarks: A sentence for each difference from training.
    """

    run: Run
    adapter: Path
    settings: Settings
    platform: str
    stack: Stack
    tokenizer: ChatTokenizer
    context_length: int
    remarks: tuple[str, ...] = ()

    @property
    def base_name(self) -> str:
        """The base model's name or path."""
        return self.settings.model.model_name_or_path

    @property
    def is_the_runs_own(self) -> bool:
        """Whether the adapter is the one the run ended with."""
        return self.adapter == self.run.folder / "adapter"

    @property
    def how(self) -> str:
        """How the base is loaded: ``4 bits (nf4)`` or its type."""
        quantization = self.settings.quantization
        return (
            f"4 bits ({quantization.bnb_4bit_quant_type})"
            if quantization.load_in_4bit
            else self.settings.model.torch_dtype
        )


@dataclass(frozen=True)
class Loaded:
    """One model in memory that answers as the adapter, and as the base while the adapter is switched off."""

    choice: LoadChoice
    model: Any

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The base's tokenizer and template."""
        return self.choice.tokenizer

    @contextlib.contextmanager
    def active(self, *, adapter: bool) -> Iterator[Any]:
        """Yield the model with or without its adapter, in the precision of the run's evaluation."""
        import torch

        mixed = self.choice.settings.mixed_precision
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if mixed:
                stack.enter_context(torch.autocast(self.model.device.type, dtype=getattr(torch, mixed)))
            if not adapter:
                stack.enter_context(self.model.disable_adapter())
            yield self.model


def add_run_arguments(parser: argparse.ArgumentParser, *, quantised: bool = True) -> None:
    """Add the run, another adapter in place of its own, and where and how to load."""
    parser.add_argument(
        "run", nargs="?", default=NEWEST, metavar="RUN", help="a run directory or name; default: newest"
    )
    parser.add_argument(
        "--adapter", type=Path, metavar="FOLDER", help="another adapter for the same base, such as a checkpoint"
    )
    if quantised:
        parser.add_argument("--unquantised", action="store_true", help="load the base in its own dtype, not in 4 bits")
    parser.add_argument("--cpu", action="store_true", help="use the CPU even where there is a GPU")


def choose(options: argparse.Namespace, stack: Stack) -> LoadChoice:
    """Find what the command line names, and what must differ on this machine.

    Raises:
        RunError: Something is missing, or this stack cannot load it; one sentence, the fix after a semicolon.
    """
    run = read_run(find_run(options.run))
    adapter = _adapter_folder(options.adapter) if options.adapter else run.adapter
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise RunError(
            f"{adapter}: has no {ADAPTER_WEIGHTS}, and other formats can run code when loaded; copy the whole adapter "
            "directory, or save the adapter as safetensors where it was trained"
        )
    portable = read_portable(adapter)
    platform = "cpu" if options.cpu else judge(probe()).platform
    settings, remarks = _as_loaded_here(run.settings, stack, platform, unquantised=options.unquantised)
    name = settings.model.model_name_or_path
    if options.adapter:
        trained_on = portable.config.get("base_model_name_or_path")
        if trained_on and trained_on != name:
            remarks.append(f"{adapter} was trained on {trained_on}, loaded on {name}")
    remarks += portable.remarks
    try:
        base = require_whole(name, settings.model.revision, stack.traits.reader, download=True)
        tokenizer = ChatTokenizer.load_for(settings, download=True)
    except ModelFileError as exc:
        raise RunError(str(exc)) from exc
    context_length = shape_in(completed(base.config)).max_position_embeddings
    return LoadChoice(run, adapter, settings, platform, stack, tokenizer, context_length, tuple(remarks))


def _adapter_folder(folder: Path) -> Path:
    folder = folder.expanduser()
    for path in (folder, folder / "adapter"):
        if (path / "adapter_config.json").exists():
            return path
    raise RunError(f"{folder}: has no adapter_config.json; name an adapter or checkpoint directory")


def _as_loaded_here(
    settings: Settings, stack: Stack, platform: str, *, unquantised: bool
) -> tuple[Settings, list[str]]:
    remarks = []
    model, quantization = settings.model, settings.quantization
    if quantization.load_in_4bit and unquantised:
        quantization = replace(quantization, load_in_4bit=False)
        remarks.append(f"the base is loaded in {model.torch_dtype}; the adapter was trained on it in 4 bits")
    elif quantization.load_in_4bit and platform not in stack.traits.four_bit_platforms:
        raise RunError(
            f"the run's base is in 4 bits, which the {stack.name} stack cannot load on {platform}; use STACK=current, "
            "or --unquantised"
        )
    flash_elsewhere = model.attn_implementation in FLASH and platform not in CUDA_PLATFORMS
    # For rows laid end to end, and here they come one by one; before torch 2.11 it knows no window either.
    known = {"auto", *stack.attention_implementations} - {"varlen"}
    if flash_elsewhere or model.attn_implementation not in known:
        here = stack.resolve_attention("auto", platform)
        remarks.append(f"attention is {here}, was {model.attn_implementation} in the run")
        model = replace(model, attn_implementation=here)
    if platform == "cpu" and "bfloat16" in {model.torch_dtype, quantization.bnb_4bit_compute_dtype}:
        remarks.append("the run's dtype is bfloat16, which is slow on most CPUs")
    # Rows are answered one by one here, whatever they were laid out like in training.
    training = replace(settings.training, padding_free=False)
    return replace(settings, model=model, quantization=quantization, training=training), remarks


def load(choice: LoadChoice) -> Loaded:
    """Load base and adapter onto the platform's device.

    Raises:
        RunError: The adapter does not fit the base.
    """
    use_judged_device()
    with quiet_imports():
        from kit.modeling.adapter_in_use import load_adapter
        from kit.modeling.model import load_base_model

    model = load_adapter(load_base_model(choice.settings, choice.platform), choice.adapter)
    # Off while training, for gradient checkpointing; answers are several times faster with it.
    model.config.use_cache = True
    return Loaded(choice, model)
