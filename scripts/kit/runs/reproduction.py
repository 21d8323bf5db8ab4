"""Whether a finished run can be reproduced here: its receipt, configuration, data and base model.

What leaves nothing to rerun (other data, another base model, no end) is an error; what can change bits is a warning
(``kit.runs.provenance``), and what is compared afterwards is then held to a tolerance. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.failures import run_check
from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.config import schema
from kit.files.numbers import listed, mapping
from kit.model.files import ModelFileError, find, is_local
from kit.run_directory.receipt import SCHEMA_VERSION
from kit.runs.provenance import checkout, compare_provenance
from kit.runs.verify import check_file, readable, verify_metrics, verify_receipt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.run_directory.history import Run

# A path may change, its content may not.
PLACES = ("data.train_file", "data.val_file", "model.model_name_or_path")


def check(run: Run, here: Mapping[str, Any], places: Mapping[str, str]) -> list[Finding]:
    """Check a receipt against ``provenance_here`` and local files; ``places`` has new paths for keys of ``PLACES``."""
    then = readable(run.receipt)
    checks = {
        "receipt": lambda: [verify_receipt(run.folder)],
        "metrics": lambda: verify_metrics(run.folder, then),
        "run": lambda: _run(run, then),
        "config": lambda: _config(run),
        "provenance": lambda: compare_provenance(then, here),
        "data": lambda: _data(run, then["data"], places),
        "base_model": lambda: _base(then, places),
    }
    return [finding for name, each in checks.items() for finding in run_check(each, f"reproduce.{name}")]


def _run(run: Run, then: Mapping[str, Any]) -> list[Finding]:
    place = str(run.folder / "run.json")
    version = then.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        message = f"has schema_version {version}, but this kit reads up to {SCHEMA_VERSION}"
        return [error("reproduce.schema", message, "use the kit version that trained the run", place)]
    found = []
    if run.state != "finished":
        fix = "finish it first: repeat its command with --resume auto (make: RESUME=auto)"
        found.append(
            error("reproduce.state", f"the run is {run.state}; only a finished run can be reproduced", fix, place)
        )
    for change in map(mapping, listed(then.get("changes_allowed"))):
        message = f"{change.get('key')} was changed at step {change.get('step')} by --allow-changed"
        fix = "choose a run without changes; no single configuration reproduces this one"
        found.append(error("reproduce.changed", message, fix, place))
    for change in map(mapping, listed(then.get("compute_changes"))):
        step, key, was, now = map(change.get, ("step", "key", "was", "is"))
        message = f"the run computed with {key} {was} up to step {step} and {now} after it: one rerun cannot do both"
        found.append(warning("reproduce.compute", message, where=place))
    if then.get("resumed_inexactly"):
        message = "the run was resumed with an optimizer state that was not bit-equal to the saved one"
        found.append(warning("reproduce.inexact", message, where=place))
    return found


def _config(run: Run) -> list[Finding]:
    place = str(run.folder / "run.json")
    _ = run.settings  # raises where there is no configuration
    recorded = {f"{section}.{key}" for section, body in run.receipt["config"].items() for key in mapping(body)}
    known = set(schema.keys())
    id_, it = "reproduce.config", "its configuration"
    gone = [
        warning(id_, f"{it} has {key}, which this version of the kit does not", checkout(run.receipt), place)
        for key in sorted(recorded - known)
    ]
    younger = [
        ok(id_, f"{it} lacks {key}, a newer key, which keeps its default", place) for key in sorted(known - recorded)
    ]
    return gone + younger or [ok(id_, f"this version of the kit has all {len(recorded)} keys of {it}", place)]


def _data(run: Run, recorded: list[Any], places: Mapping[str, str]) -> list[Finding]:
    if not recorded or len(recorded) < len(listed(run.receipt.get("data"))):
        return [error("reproduce.data", "the receipt records no data", "train it again", str(run.folder / "run.json"))]
    return [
        _file("reproduce.data", Path(places.get(key, entry["path"])).expanduser(), entry["sha256"], key)
        for key, entry in zip(("data.train_file", "data.val_file"), recorded, strict=False)
    ]


def _base(then: Mapping[str, Any], places: Mapping[str, str]) -> list[Finding]:
    id_, key = "reproduce.base_model", "model.model_name_or_path"
    base = mapping(then.get("base_model"))
    if not base.get("files"):
        return [error(id_, "the receipt records no file of the base model", "train it again", "run.json")]
    name = places.get(key, base["name"])
    if is_local(name):
        return [_file(id_, Path(name).expanduser() / file, digest, key) for file, digest in base["files"].items()]
    revision = base.get("revision_resolved") or base.get("revision")
    found = []
    for file, digest in base["files"].items():
        try:
            path = find(name, file, revision)
        except ModelFileError:
            text = f"{file} of {name} is not on this machine; the rerun downloads revision {revision or 'main'}"
            found.append(skipped(id_, text))
        else:
            found.append(_file(id_, path, digest, key))
    return found


def _file(id_: str, path: Path, expected: str, key: str) -> Finding:
    fix = f"restore the run's own file, or give its path: {key}=PATH (make: SET={key}=PATH)"
    if not path.exists():
        return error(id_, "is not on this machine", fix, str(path))
    return check_file(id_, path, expected, fix)
