"""The parity result for a run's machine and stack, in one line for its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from kit.config.platforms import CUDA_PLATFORMS
from kit.files.numbers import mapping
from kit.parity.agreement import check_agreement, verdict_of
from kit.parity.results import ParityError, Result, read_reference, read_result, result_file
from kit.run_directory.history import OUTPUTS
from kit.runs.provenance import gpu_of
from kit.stacks.registry import make_argument

if TYPE_CHECKING:
    from kit.run_directory.history import Run

_WHAT_FOR = "whether training on this machine and stack matches the formulas"


def parity_line(run: Run) -> str:
    """Say what ``make parity`` found with a run's platform, device, stack and versions, or how to run it."""
    stack, platform = str(run.receipt.get("stack")), str(run.receipt.get("platform"))
    command = f"make parity{make_argument(stack)}"
    for folder in dict.fromkeys((run.folder.parent, OUTPUTS)):
        try:
            result = read_result(result_file(folder, stack, platform))
            contract, exact = read_reference()
        except ParityError:
            continue
        if result.contract != contract:
            return f"not run with this revision of the kit: {command} shows {_WHAT_FOR}"
        if unlike := _unlike(result, run.receipt):
            return f"not run in this run's environment ({unlike}): {command} shows {_WHAT_FOR}"
        findings = check_agreement(result, contract, exact)
        return f"{verdict_of(result, findings, exact)} ({str(result.where.get('measured_at'))[:10]})"
    return f"not run: {command} shows {_WHAT_FOR}"


def _unlike(result: Result, receipt: dict[str, Any]) -> str:
    """Name what was another when parity was measured; empty where nothing was."""
    packages = {canonicalize_name(str(name)): version for name, version in mapping(receipt.get("packages")).items()}
    for name, version in mapping(result.where.get("versions")).items():
        if name != "wandb" and packages.get(canonicalize_name(name)) != version:
            return f"{name} was {version}"
    device = _device(receipt)
    measured_on = result.where.get("device")
    return "" if device in {None, measured_on} else f"the device was {measured_on}"


def _device(receipt: dict[str, Any]) -> Any:
    machine = mapping(receipt.get("machine"))
    gpu = gpu_of(machine) if receipt.get("platform") in CUDA_PLATFORMS else None
    return gpu or machine.get("cpu_model")
