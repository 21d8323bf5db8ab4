"""The configurations the formulas are held to: small models on a CPU, Mistral-7B on a GPU. Imports torch when asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from kit.budget.activations import saved_by_model
from kit.budget.job import Job, MicroBatch
from kit.budget.loss import saved_by_loss
from kit.budget.memory import fixed_terms, plan_peak, step_bytes
from kit.config.resolve import resolve
from kit.interpreter import PROJECT_ROOT
from kit.model.shape import MISTRAL_7B, ModelShape

# How far off a prediction may be: of what stands and what autograd keeps, counted exactly; of the peak, which has
# working sets in it; of the layers alone, which in so small a model are mostly working set.
KEPT_WITHIN, PEAK_WITHIN, LAYERS_WITHIN = 0.01, 0.05, 0.1
_BASE = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
_PLAIN: dict[str, Any] = {"lora.lora_dropout": 0.0, "training.gradient_checkpointing": False}
_DROPOUT = {"lora.lora_dropout": 0.05}
_CHECKPOINTS = {"training.gradient_checkpointing": True}
_UNQUANTISED = {"quantization.load_in_4bit": False}
_FLOAT32 = {
    "model.torch_dtype": "float32",
    "training.bf16": False,
    "quantization.bnb_4bit_compute_dtype": "float32",
}
_SMALL = ModelShape(512, 256, 896, 4, 8, 2, 32, 4_096)
_SHAPES = {
    "every head its own keys": ModelShape(1_000, 128, 320, 4, 4, 4, 32, 4_096),
    "one key head": ModelShape(512, 320, 640, 3, 16, 1, 20, 4_096),
    "wide heads": ModelShape(4_000, 256, 768, 5, 4, 2, 64, 4_096),
    "narrow feed-forward": ModelShape(512, 256, 256, 4, 8, 4, 32, 4_096),
}


@dataclass(frozen=True)
class Case:
    """One configuration to measure."""

    name: str
    job: Job


@dataclass(frozen=True)
class Measured:
    """What was counted of one case.

    Attributes:
        standing_bytes: Parameters, buffers, quantisation constants and gradients, before the step that is counted; on
            CUDA all that is allocated.
        saved_bytes: What autograd keeps after the forward pass, parameters left out, each storage once.
        step_bytes: The peak of a forward and backward pass above what stood before it.
        layers_bytes: The same without head and loss.
    """

    standing_bytes: int
    saved_bytes: int
    step_bytes: int
    layers_bytes: int


@dataclass(frozen=True)
class Compared:
    """One case: pairs of bytes predicted and measured.

    Attributes:
        name: What is special about it.
        standing: What stands before a step, the optimizer's state left out: it is not built here.
        kept: What autograd keeps.
        peak: The peak of a step; on a CPU above what always stands.
        layers: The same without head and loss, which hide the layers where the model is small.
        moment: When the peak is expected.
    """

    name: str
    standing: tuple[int, int]
    kept: tuple[int, int]
    peak: tuple[int, int]
    layers: tuple[int, int]
    moment: str

    @property
    def is_within(self) -> bool:
        """All figures are as near as they have to be."""
        return (
            _off(*self.kept) <= KEPT_WITHIN and _off(*self.peak) <= PEAK_WITHIN and _off(*self.layers) <= LAYERS_WITHIN
        )

    @property
    def line(self) -> str:
        """The case on one line."""
        pairs = {"stands": self.standing, "kept": self.kept, "layers": self.layers, "peak": self.peak}
        return "  ".join([*(f"{name} {_pair(*pair)}" for name, pair in pairs.items()), f"{self.name} ({self.moment})"])

    def as_mapping(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        return {
            "name": self.name,
            "standing_bytes": {"predicted": self.standing[0], "measured": self.standing[1]},
            "kept_bytes": {"predicted": self.kept[0], "measured": self.kept[1]},
            "layers_bytes": {"predicted": self.layers[0], "measured": self.layers[1]},
            "peak_bytes": {"predicted": self.peak[0], "measured": self.peak[1]},
            "moment": self.moment,
            "within": self.is_within,
        }


@dataclass(frozen=True)
class Refused:
    """One case that the device refused the memory for.

    Attributes:
        name: What is special about it.
        needed_bytes: The most that is expected to be allocated, building the model included.
        room_bytes: What the device had free, or None where that is not known.
    """

    name: str
    needed_bytes: int
    room_bytes: int | None

    @property
    def is_within(self) -> bool:
        """The plan says too that it does not fit, as nearly as a peak has to be foretold."""
        return self.room_bytes is not None and self.needed_bytes * (1 + PEAK_WITHIN) > self.room_bytes

    @property
    def line(self) -> str:
        """The case on one line."""
        room = "" if self.room_bytes is None else f" of the {self.room_bytes / 1e9:.1f} GB that were free"
        verdict = "does not fit here, as planned" if self.is_within else "out of memory, and planned to fit"
        return f"{verdict}: takes {self.needed_bytes / 1e9:.1f} GB{room}  {self.name}"

    def as_mapping(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        return {
            "name": self.name,
            "refused": True,
            "needed_bytes": self.needed_bytes,
            "room_bytes": self.room_bytes,
            "within": self.is_within,
        }


def _off(predicted: int, measured: int) -> float:
    return abs(predicted / measured - 1) if measured else float(predicted != 0)


def _pair(predicted: int, measured: int) -> str:
    return f"{predicted / 1e6:.2f} MB ({(predicted / measured - 1) * 100:+.1f} %)"


def cases(stack: str, *, small: bool = False) -> list[Case]:
    """Return what is measured with a stack: on its GPU if there is one, and if not ``small``."""
    import torch

    if torch.cuda.is_available() and not small:
        return gpu_cases(stack, torch.cuda.get_device_capability())
    return _on_cpu(stack)


def case_names(stack: str, *, on_gpu: bool) -> list[str]:
    """Return the names of what ``cases`` returns; imports no torch."""
    return [case.name for case in (gpu_cases(stack) if on_gpu else _on_cpu(stack))]


def compare(case: Case, base: Any = None) -> Compared:
    """Measure one case, on a base that is there already if one is given, and put the prediction beside it."""
    from kit.budget.measure import measure

    return against(case, measure(case.job, base))


def against(case: Case, measured: Measured) -> Compared:
    """Put what today's formulas predict of a case beside what was measured."""
    job = case.job
    kept = saved_by_model(job) + saved_by_loss(job)
    standing = sum(term.size_bytes for term in fixed_terms(job) if term.name != "optimizer")
    # On CUDA the figure to meet is max_memory_allocated, which has in it what stands.
    under = (standing, measured.standing_bytes) if job.device == "cuda" else (0, 0)
    return Compared(
        case.name,
        (standing, measured.standing_bytes),
        (kept, measured.saved_bytes),
        (under[0] + step_bytes(job), under[1] + measured.step_bytes),
        (step_bytes(job, with_loss=False), measured.layers_bytes),
        plan_peak(job).moment,
    )


def refused(case: Case, room_bytes: int | None) -> Refused:
    """Say what a case that ran out of memory was expected to take, of what was free before it."""
    job = case.job
    # The model is made on the device before its layers are quantised.
    unquantised = (job.shape.linear_parameters + job.shape.embedding_parameters) * job.base_size
    return Refused(case.name, max(plan_peak(job).allocated_bytes, unquantised), room_bytes)


def _job(stack: str, shape: ModelShape, batch: MicroBatch, every: int, **more: Any) -> Job:
    overrides = _PLAIN | {"lora.r": 8} | more.pop("overrides", {})
    return Job(shape, resolve(_BASE, overrides).settings, stack, "cpu", more.pop("attention"), batch, every)


def base_job(stack: str, shape: ModelShape, device: str) -> Job:
    """Return a job whose base all cases on a device share, and all that ``make prove`` times."""
    on_cuda = device == "cuda"
    attention = "sdpa" if stack == "current" else "eager"
    overrides = {} if on_cuda else _FLOAT32
    return replace(_job(stack, shape, _batch(1, 8), 1, attention=attention, overrides=overrides), device=device)


def _batch(rows: int, length: int, *, padded: bool = False) -> MicroBatch:
    return MicroBatch(rows, length, padded, rows * (length - 1) - padded)


def _on_cpu(stack: str) -> list[Case]:
    """Small models; the reference stack has no 4-bit on a CPU, no SDPA and checkpoints all layers or none."""
    is_current = stack == "current"
    attention = "sdpa" if is_current else "eager"
    quantised: dict[str, Any] = {} if is_current else _UNQUANTISED
    wanted: list[tuple[str, dict[str, Any], int]] = [
        ("no checkpoints", {}, 1),
        ("dropout", _DROPOUT, 1),
        ("all layers checkpointed", _CHECKPOINTS, 1),
        ("all layers checkpointed, dropout", _CHECKPOINTS | _DROPOUT, 1),
        ("float32", _FLOAT32, 1),
        ("float32, dropout, checkpoints", _FLOAT32 | _DROPOUT | _CHECKPOINTS, 1),
        ("float32 base in mixed precision", {"model.torch_dtype": "float32"}, 1),
        ("bfloat16 adapter", {"lora.adapter_dtype": "bfloat16"}, 1),
        ("adapters on attention alone", {"lora.target_modules": ["q_proj", "v_proj"]}, 1),
    ]
    if is_current:
        wanted += [
            ("unquantised", _UNQUANTISED, 1),
            ("unquantised, dropout", _UNQUANTISED | _DROPOUT, 1),
            ("every 2nd layer checkpointed", _CHECKPOINTS, 2),
            ("every 2nd layer checkpointed, dropout", _CHECKPOINTS | _DROPOUT, 2),
            ("every 3rd layer checkpointed", _CHECKPOINTS, 3),
            ("no double quantisation", {"quantization.bnb_4bit_use_double_quant": False}, 1),
        ]
    found = [
        Case(name, _job(stack, _SMALL, _batch(2, 64), every, attention=attention, overrides=quantised | overrides))
        for name, overrides, every in wanted
    ]
    for rows, length, padded in ((1, 192, False), (3, 48, True), (4, 128, True)):
        name = f"{rows} x {length}{', padded' if padded else ''}"
        batch = _batch(rows, length, padded=padded)
        found.append(Case(name, _job(stack, _SMALL, batch, 1, attention=attention, overrides=quantised | _DROPOUT)))
    for name, shape in _SHAPES.items():
        found.append(Case(name, _job(stack, shape, _batch(2, 96), 1, attention=attention, overrides=quantised)))
    if is_current:
        found.append(Case("eager", _job(stack, _SMALL, _batch(2, 256), 1, attention="eager")))
    return found


def gpu_cases(stack: str, capability: tuple[int, int] | None = None) -> list[Case]:
    """Return what is measured on a GPU: Mistral-7B in 4 bits, r=16 on all modules, as the shipped configuration has it.

    Args:
        stack: ``reference`` or ``current``.
        capability: The GPU's compute capability, where it is known.
    """
    attention = "sdpa" if stack == "current" else "eager"
    sizes: list[tuple[int, int, dict[str, Any], int, bool]] = [
        (1, 2_048, _CHECKPOINTS, 1, False),
        (4, 2_048, _CHECKPOINTS, 1, False),
        (4, 4_096, _CHECKPOINTS, 1, False),
        (8, 4_096, _CHECKPOINTS, 1, False),
        (4, 4_096, _CHECKPOINTS | _DROPOUT, 1, False),
        (4, 4_096, _CHECKPOINTS | _DROPOUT, 1, True),
        (1, 512, {}, 1, False),
        (1, 4_096, {}, 1, False),
        (1, 4_096, _DROPOUT, 1, False),
        (2, 4_096, {}, 1, False),
        (2, 2_048, _DROPOUT, 1, True),
        (2, 4_096, _CHECKPOINTS, 2, False),
        (4, 4_096, _CHECKPOINTS, 3, False),
        (4, 2_048, _CHECKPOINTS | {"quantization.bnb_4bit_use_double_quant": False}, 1, False),
    ]
    found = []
    for rows, length, overrides, every, padded in sizes:
        if every > 1 and stack != "current":
            continue
        batch = _batch(rows, length, padded=padded)
        job = _job(stack, MISTRAL_7B, batch, every, attention=attention, overrides=overrides | {"lora.r": 16})
        words = [f"{rows} x {length}", f"every {every}", *(f"{key}={value}" for key, value in overrides.items())]
        name = ", ".join([*words, "padded"] if padded else words)
        found.append(Case(name, replace(job, device="cuda", capability=capability)))
    return found
