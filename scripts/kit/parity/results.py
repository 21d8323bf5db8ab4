"""Results of the canonical training: written as JSON, read back, compared. Imports no torch."""

from __future__ import annotations

import math
import platform as this_platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.mistakes import WrongUseError
from kit.config.platforms import CUDA_PLATFORMS
from kit.files.json_files import read_object
from kit.files.numbers import finite, listed, mapping
from kit.machine.cuda_order import chosen_of
from kit.run_directory.provenance import describe_code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.machine.facts import Machine
    from kit.stacks.stack import Stack

SCHEMA_VERSION = 1
REFERENCE = Path(__file__).with_name("reference.json")


class ParityError(WrongUseError):
    """A result file cannot be used; one sentence with the fix after a semicolon."""


@dataclass(frozen=True)
class Numbers:
    """A training's numbers.

    Attributes:
        losses: Of each update, in nats per answer token.
        gradient_norms: Of each update, before clipping.
        module_norms: Of the first update, over all layers, by kind of module such as ``q_proj.lora_A``.
    """

    losses: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    module_norms: dict[str, float]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Numbers:
        """Read them back; what is not a number becomes NaN, which agrees with nothing."""
        losses, norms = (tuple(map(_number, listed(content.get(key)))) for key in ("losses", "gradient_norms"))
        modules = {str(name): _number(value) for name, value in mapping(content.get("module_norms")).items()}
        return cls(losses, norms, modules)

    def rounded(self) -> Numbers:
        """Round to twelve digits, which every machine's float64 agrees on."""

        def short(value: float) -> float:
            return float(f"{value:.12g}")

        modules = {name: short(value) for name, value in self.module_norms.items()}
        return Numbers(tuple(map(short, self.losses)), tuple(map(short, self.gradient_norms)), modules)

    def first_update(self) -> Numbers:
        """Return the first update's numbers, which no earlier update affects."""
        return Numbers(self.losses[:1], self.gradient_norms[:1], self.module_norms)

    def gradients(self) -> dict[str, float]:
        """Return every gradient norm by name."""
        updates = {f"update {number}": norm for number, norm in enumerate(self.gradient_norms, 1)}
        return updates | {f"{name} in update 1": norm for name, norm in self.module_norms.items()}


@dataclass(frozen=True)
class Difference:
    """The largest relative differences between two trainings, and where they are."""

    loss: float
    loss_at: str
    gradient: float
    gradient_at: str


@dataclass(frozen=True)
class CaseResult:
    """One precision on one machine.

    Attributes:
        numbers: None if it did not run; ``reason`` says why.
        failed: It should have run, but failed.
        seconds: Loading included.
    """

    name: str
    numbers: Numbers | None = None
    reason: str = ""
    failed: bool = False
    attention: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """One machine's result: the contract's hashes, where it was measured, and the cases in the contract's order."""

    contract: dict[str, str]
    where: dict[str, Any]
    cases: tuple[CaseResult, ...] = field(default=())

    @property
    def place(self) -> str:
        """Device, platform and stack."""
        where = {key: self.where.get(key, "unknown") for key in ("device", "platform", "stack")}
        return f"{where['device']} ({where['platform']}), {where['stack']} stack"

    def case(self, name: str) -> CaseResult | None:
        """Return a case's result; None if there is none."""
        return next((found for found in self.cases if found.name == name), None)

    def numbers(self) -> dict[str, Numbers]:
        """Return the numbers of every case that ran."""
        return {found.name: found.numbers for found in self.cases if found.numbers is not None}

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON, with null for NaN and infinity."""
        return {"schema_version": SCHEMA_VERSION, **_plain(asdict(self))}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def difference(measured: Numbers, expected: Numbers) -> Difference:
    """Compare two trainings; a number that only one of them has differs infinitely."""
    losses = [
        {f"update {number}": loss for number, loss in enumerate(numbers.losses, 1)} for numbers in (measured, expected)
    ]
    loss, loss_at = _furthest(*losses)
    gradient, gradient_at = _furthest(measured.gradients(), expected.gradients())
    return Difference(loss, loss_at, gradient, gradient_at)


def _furthest(measured: Mapping[str, float], expected: Mapping[str, float]) -> tuple[float, str]:
    found = [
        (_relative(measured.get(name, math.nan), expected.get(name, math.nan)), name)
        for name in dict.fromkeys([*expected, *measured])
    ]
    return max(found, key=lambda item: item[0], default=(math.inf, "nothing was measured"))


def _relative(one: float, other: float) -> float:
    if one == other:
        return 0.0
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))


def read_result(path: Path) -> Result:
    """Read one machine's result.

    Raises:
        ParityError: It cannot be read, or is something else.
    """
    content = _read(path)
    cases = [_case(mapping(entry)) for entry in listed(content.get("cases"))]
    if not cases or content.get("schema_version") != SCHEMA_VERSION:
        raise ParityError(f"{path}: is not a result of make parity; name the file that it wrote")
    contract = {str(key): str(value) for key, value in mapping(content.get("contract")).items()}
    return Result(contract, mapping(content.get("where")), tuple(cases))


def read_reference(path: Path = REFERENCE) -> tuple[dict[str, str], dict[str, Numbers]]:
    """Read the committed reference: the contract's hashes, and the exact numbers by mathematics (see ``Case``).

    Raises:
        ParityError: It cannot be read.
    """
    content = _read(path)
    exact = {name: Numbers.from_json(mapping(body)) for name, body in mapping(content.get("exact")).items()}
    return {str(key): str(value) for key, value in mapping(content.get("contract")).items()}, exact


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except OSError as exc:
        raise ParityError(f"{path}: cannot be read ({exc.strerror}); name the file that make parity wrote") from exc
    except ValueError as exc:
        raise ParityError(f"{path}: {exc}; copy it again") from exc


def _case(entry: Mapping[str, Any]) -> CaseResult:
    numbers = entry.get("numbers")
    return CaseResult(
        name=str(entry.get("name")),
        numbers=Numbers.from_json(numbers) if isinstance(numbers, dict) else None,
        reason=str(entry.get("reason") or ""),
        failed=entry.get("failed") is True,
        attention=str(entry.get("attention") or ""),
        seconds=finite(entry.get("seconds")) or 0.0,
    )


def _number(value: Any) -> float:
    found = finite(value)
    return math.nan if found is None else found


def describe_place(machine: Machine, platform: str, stack: Stack) -> dict[str, Any]:
    """Return device, stack, versions, code and date as the result file records them."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform,
        "device": device_name(machine, platform),
        "system": f"{machine.system} {machine.arch}",
        "stack": stack.name,
        "python": this_platform.python_version(),
        "versions": stack.versions,
        **describe_code(),
    }


def device_name(machine: Machine, platform: str) -> str:
    """Return the name of the GPU, the chip or the processor that trains."""
    gpu = chosen_of(machine.nvidia)
    if platform in CUDA_PLATFORMS and gpu:
        return gpu.name
    return machine.cpu_model or "unknown processor"


def result_file(outputs: Path, stack: str, platform: str, attention: str = "auto") -> Path:
    """Return the result file of a stack on a platform; each attention other than ``auto`` has its own."""
    return outputs / f"parity-{stack}-{platform}{'' if attention == 'auto' else f'-{attention}'}.json"
