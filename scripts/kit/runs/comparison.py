"""Two runs side by side: differences in their inputs, and their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.config.schema import with_defaults
from kit.config.yaml_writer import scalar
from kit.files.numbers import listed, mapping
from kit.runs.summary import summarise
from kit.runs.table import COLUMNS

if TYPE_CHECKING:
    from kit.run_directory.history import Run

GROUPS = ("config", "data", "code", "stack", "machine", "image")
# These always differ.
_NO_DIFFERENCE = {"training.run_name", "training.output_dir"}
_RESULTS = ("state", "steps", "loss", "eval_loss", "seconds", "tokens_per_second", "peak_memory_bytes")
_NOT_THERE = "not there"
_SHOWN = 12  # characters of a hash that tell two apart


@dataclass(frozen=True)
class Difference:
    """One thing two runs differ in; ``group`` is one of ``GROUPS``, or ``result``."""

    group: str
    name: str
    first: str
    second: str


def compare_runs(first: Run, second: Run) -> list[Difference]:
    """Return every difference in configuration, data, code, stack, machine and image."""
    sources = {"config": _config, "data": _data, "code": _code, "stack": _stack, "machine": _machine, "image": _image}
    return [found for group in GROUPS for found in _differing(group, sources[group](first), sources[group](second))]


def compare_results(first: Run, second: Run) -> list[Difference]:
    """Return each run's results, equal ones too."""
    shown = []
    for run in (first, second):
        summary = summarise(run)
        results = {COLUMNS[key][0]: COLUMNS[key][1](summary) for key in _RESULTS}
        shown.append(results | {"adapter": str(run.receipt.get("adapter_sha256") or "none")[:_SHOWN]})
    return [Difference("result", name, value, shown[1][name]) for name, value in shown[0].items()]


def _differing(group: str, first: dict[str, str], second: dict[str, str]) -> list[Difference]:
    names = list(dict.fromkeys([*first, *second]))
    pairs = [(name, first.get(name, _NOT_THERE), second.get(name, _NOT_THERE)) for name in names]
    return [Difference(group, name, one, other) for name, one, other in pairs if one != other]


def _config(run: Run) -> dict[str, str]:
    values = {
        f"{section}.{key}": value
        for section, body in mapping(run.receipt.get("config")).items()
        for key, value in mapping(body).items()
    }
    values = with_defaults(values) if values else values
    return {key: written(value) for key, value in values.items() if key not in _NO_DIFFERENCE}


def _data(run: Run) -> dict[str, str]:
    """Name the files, the rows as they were encoded and ordered, and the base model's files."""
    found: dict[str, str] = {}
    for role, file in zip(("train", "val"), listed(run.receipt.get("data")), strict=False):
        entry = mapping(file)
        found |= {
            f"{role} {key}": written(entry[key])
            for key in ("sha256", "rows", "tokens", "trainable_tokens")
            if key in entry
        }
    names = {"data.rows": "rows as encoded", "data.order": "order of the rows", "data.eval_rows": "val rows as encoded"}
    for key, value in mapping(run.receipt.get("identity")).items():
        if key in names:
            found[names[key]] = written(value)
        elif str(key).startswith("base_model."):
            found[f"base model {str(key).removeprefix('base_model.')}"] = written(value)
    return found


def _code(run: Run) -> dict[str, str]:
    return _picked(run.receipt, "git_revision", "git_dirty", "git_diff_sha256")


def _stack(run: Run) -> dict[str, str]:
    lock = _picked(mapping(run.receipt.get("lock")), "name", "sha256")
    return (
        _picked(run.receipt, "stack", "python", "attention")
        | {str(name): str(version) for name, version in mapping(run.receipt.get("packages")).items()}
        | {f"lock {key}": value for key, value in lock.items()}
    )


def _machine(run: Run) -> dict[str, str]:
    machine = mapping(run.receipt.get("machine"))
    nvidia = mapping(machine.get("nvidia"))
    names = [str(mapping(gpu).get("name")) for gpu in listed(nvidia.get("gpus"))]
    found = _picked(run.receipt, "platform") | _picked(machine, "system", "arch", "cpu_model", "cpu_count")
    found |= {"GPU": ", ".join(names)} if names else {}
    found |= {"NVIDIA driver": str(nvidia["driver_version"])} if nvidia.get("driver_version") else {}
    compute = mapping(run.receipt.get("compute"))
    changed = [mapping(change) for change in listed(run.receipt.get("compute_changes"))]
    earlier = [f"{each.get('key')} {each.get('was')} until step {each.get('step')}" for each in changed]
    found |= {"computed otherwise before": "; ".join(earlier)} if earlier else {}
    return found | {str(name): written(value) for name, value in compute.items() if value is not None}


def _image(run: Run) -> dict[str, str]:
    image = mapping(run.receipt.get("image"))
    return _picked(mapping(run.receipt.get("machine")), "in_container") | _picked(image, *map(str, image))


def _picked(source: dict[str, Any], *keys: str) -> dict[str, str]:
    return {key: written(source[key]) for key in keys if source.get(key) is not None}


def written(value: Any) -> str:
    """Write a value of a receipt: a mapping as Python has it, anything else as YAML."""
    return str(value) if isinstance(value, dict) else scalar(value)
