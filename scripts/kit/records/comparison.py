"""Two runs side by side: what differs in configuration, data, stack and machine, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.config.yaml_writer import scalar
from kit.records.numbers import listed, mapping
from kit.records.summary import summarise
from kit.records.table import COLUMNS

if TYPE_CHECKING:
    from kit.records.history import Run

# Names and places of the run itself differ always and say nothing.
_NO_DIFFERENCE = {"training.run_name", "training.output_dir"}
_RESULTS = ("state", "steps", "loss", "eval_loss", "seconds", "tokens_per_second", "peak_memory_bytes")


@dataclass(frozen=True)
class Difference:
    """One thing two runs differ in; ``group`` is one of config, data, stack, machine, code and result."""

    group: str
    name: str
    first: str
    second: str


def compare_runs(first: Run, second: Run) -> list[Difference]:
    """Return everything that differs between two runs and could explain another result, then the results."""
    sides = (first, second)
    found = [
        *_differing("config", _config(first), _config(second)),
        *_differing("data", _data(first), _data(second)),
        *_differing("stack", _stack(first), _stack(second)),
        *_differing("machine", _machine(first), _machine(second)),
        *_differing("code", *(_picked(run, "git_revision", "git_dirty") for run in sides)),
    ]
    summaries = [summarise(run) for run in sides]
    results = [{COLUMNS[key][0]: COLUMNS[key][1](summary) for key in _RESULTS} for summary in summaries]
    results[0]["adapter"], results[1]["adapter"] = (
        str(run.receipt.get("adapter_sha256", "none"))[:16] for run in sides
    )
    return [*found, *(Difference("result", name, value, results[1][name]) for name, value in results[0].items())]


def _differing(group: str, first: dict[str, str], second: dict[str, str]) -> list[Difference]:
    names = list(dict.fromkeys([*first, *second]))
    pairs = [(name, first.get(name, "not there"), second.get(name, "not there")) for name in names]
    return [Difference(group, name, one, other) for name, one, other in pairs if one != other]


def _config(run: Run) -> dict[str, str]:
    values = {
        f"{section}.{key}": value
        for section, body in mapping(run.receipt.get("config")).items()
        for key, value in mapping(body).items()
    }
    return {key: _written(value) for key, value in values.items() if key not in _NO_DIFFERENCE}


def _data(run: Run) -> dict[str, str]:
    found: dict[str, str] = {}
    for role, file in zip(("train", "val"), listed(run.receipt.get("data")), strict=False):
        entry = mapping(file)
        found |= {
            f"{role} {key}": _written(entry[key])
            for key in ("sha256", "rows", "tokens", "trainable_tokens")
            if key in entry
        }
    return found


def _stack(run: Run) -> dict[str, str]:
    return _picked(run, "stack", "python", "attention") | {
        str(name): str(version) for name, version in mapping(run.receipt.get("packages")).items()
    }


def _machine(run: Run) -> dict[str, str]:
    machine = mapping(run.receipt.get("machine"))
    gpus = mapping(machine.get("nvidia")).get("gpus")
    names = [str(mapping(gpu).get("name")) for gpu in listed(gpus)]
    chosen = {key: _written(machine[key]) for key in ("system", "arch", "cpu_model", "cpu_count") if key in machine}
    return _picked(run, "platform") | chosen | ({"GPU": ", ".join(names)} if names else {})


def _picked(run: Run, *keys: str) -> dict[str, str]:
    return {key: _written(run.receipt[key]) for key in keys if key in run.receipt}


def _written(value: Any) -> str:
    return str(value) if isinstance(value, dict) else scalar(value)
