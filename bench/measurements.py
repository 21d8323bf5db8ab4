"""What `make prove` measures, in order of worth. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.peers import PEERS
from bench.variants import BASELINE, KIT, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.variants import Variant

_GB = 1_000_000_000
_BASE = 16 * _GB  # while it is drawn, before it is in 4 bits
AGAIN = ", again"  # the baseline's second run, after the other variants: a drift of the machine shows between the two


@dataclass(frozen=True)
class Measurement:
    """One thing to measure.

    Attributes:
        name: Its name in the ledger: a kind and, after slashes, which of that kind.
        answers: The question it answers.
        seconds: What it takes on an H100 at the 7b scale, once the base is there.
        gpu_bytes: The least free memory it makes sense with.
        package: What it needs besides the stack; empty for nothing.
        cuda_only: It makes sense on an NVIDIA GPU alone.
        on_disk: It reads the base from the disk, where 14.5 GB of it are written once.
        apart: It has a process of its own: it patches libraries, or starts the kit's commands.
        padding_free_only: It is for stacks that know rows laid end to end: others have few of the faster settings.
    """

    name: str
    answers: str
    seconds: float
    gpu_bytes: int = _BASE
    package: str = ""
    cuda_only: bool = False
    on_disk: bool = False
    apart: bool = False
    padding_free_only: bool = False

    @property
    def kind(self) -> str:
        """What comes before the first slash."""
        return self.name.split("/", maxsplit=1)[0]


def measurements(memory_cases: Sequence[str]) -> list[Measurement]:
    """Return all of them, those first that one wants to know first.

    Args:
        memory_cases: The names of ``bench.memory_cases`` for this device.
    """
    first, rest = _split(VARIANTS)
    return [
        Measurement("base", "How much memory do CUDA and the base take?", 25),
        Measurement("ceiling", "How fast is this device at best?", 5, 0),
        *(_memory(case) for case in memory_cases),
        *first,
        Measurement("parity", "Does a step match the formulas?", 40, 0, apart=True),
        *_again(),
        Measurement("profile/full", "Where does a step's time go?", 20, padding_free_only=True),
        Measurement("loading", "How long does loading a base from disk take?", 60, on_disk=True, apart=True),
        Measurement(
            "first run",
            "Train, evaluate, stop, resume: is the adapter the same?",
            150,
            20 * _GB,
            on_disk=True,
            apart=True,
        ),
        *rest,
        Measurement("profile/ragged", "Where does a step's time go?", 20, cuda_only=True, padding_free_only=True),
        Measurement("evaluation", "How fast is evaluation?", 10),
        Measurement("generation", "How fast is generation?", 30),
        *(
            Measurement(
                f"peer/{workload}/{peer.name}", "Is the peer faster?", 90, cuda_only=True, on_disk=True, apart=True
            )
            for workload in ("full", "ragged")
            for peer in PEERS
        ),
    ]


def _memory(case: str) -> Measurement:
    # Another quantisation is another base, and the two would stand side by side.
    apart = "double_quant=False" in case
    return Measurement(f"memory/{case}", "Does the measured peak match the plan?", 30 if apart else 4, apart=apart)


_FIRST = (BASELINE, KIT, *(variant.name for variant in VARIANTS[2:5]))


def _split(variants: Sequence[Variant]) -> tuple[list[Measurement], list[Measurement]]:
    first = [item for variant in variants if variant.name in _FIRST for item in _speeds(variant)]
    rest = [item for variant in variants if variant.name not in _FIRST for item in _speeds(variant)]
    return first, rest


def _speeds(variant: Variant) -> Iterator[Measurement]:
    for workload in variant.workloads:
        yield Measurement(
            f"speed/{workload}/{variant.name}",
            "How fast is a step?",
            70 if variant.patches else 25,
            20 * _GB,
            variant.package,
            variant.cuda_only,
            apart=variant.patches,
            padding_free_only=True,
        )


def _again() -> list[Measurement]:
    baseline = next(variant for variant in VARIANTS if variant.name == BASELINE)
    return [
        Measurement(f"{item.name}{AGAIN}", item.answers, item.seconds, item.gpu_bytes, padding_free_only=True)
        for item in _speeds(baseline)
    ]
