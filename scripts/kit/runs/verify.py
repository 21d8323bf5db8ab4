"""Recompute every checksum of a run. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.cli.failures import run_check
from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.files.digest import file_sha256
from kit.files.numbers import listed, mapping
from kit.files.regular_files import read_regular
from kit.model.files import is_local
from kit.run_directory import checkpoints
from kit.run_directory.checkpoints import DamagedCheckpointError
from kit.run_directory.receipt import is_untouched, read_receipt

_RESTORE = "restore it from a copy"


def verify(folder: Path) -> list[Finding]:
    """Check a run directory, and the data and the base model its receipt names."""
    receipt = read_receipt(folder)
    if receipt is None:
        fix = "name a run directory, such as outputs/NAME"
        return [error("verify.receipt", "has no readable run.json", fix, str(folder))]
    findings = [verify_receipt(folder)]
    receipt = readable(receipt)
    findings += run_check(lambda: verify_metrics(folder, receipt), "verify.metrics")
    findings += run_check(lambda: _adapter(folder, receipt), "verify.adapter")
    findings += run_check(lambda: _checkpoints(folder, receipt), "verify.checkpoints")
    findings += run_check(lambda: _data(receipt), "verify.data")
    return findings + run_check(lambda: _base(receipt), "verify.base_model")


def readable(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Return a receipt without invalid names and hashes of files, which a changed one may hold."""
    base = mapping(receipt.get("base_model"))
    checkpoint_keys, data_keys = ("name", "manifest_sha256"), ("path", "sha256")
    return {
        **receipt,
        "metrics_sha256": receipt.get("metrics_sha256") if _is_text(receipt.get("metrics_sha256")) else None,
        "adapter_files": _names(receipt.get("adapter_files")),
        "checkpoints": [entry for entry in listed(receipt.get("checkpoints")) if _has_texts(entry, checkpoint_keys)],
        "data": [entry for entry in listed(receipt.get("data")) if _has_texts(entry, data_keys)],
        "base_model": {**base, "files": _names(base.get("files"))} if _is_text(base.get("name")) else None,
    }


def _names(files: Any) -> dict[str, str]:
    return {name: digest for name, digest in mapping(files).items() if _is_text(name) and _is_text(digest)}


def _has_texts(entry: Any, keys: Sequence[str]) -> bool:
    return all(_is_text(mapping(entry).get(key)) for key in keys)


def _is_text(value: Any) -> bool:
    """Tell whether a value could be a path: a NUL or half a character is in none."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def verify_receipt(folder: Path) -> Finding:
    """Check that ``run.json`` is as the run wrote it."""
    path = folder / "run.json"
    if is_untouched(read_regular(path)):
        return ok("verify.receipt", "is as the run wrote it", str(path))
    return error("verify.receipt", "was changed after it was written", _RESTORE, str(path))


def verify_metrics(folder: Path, receipt: Mapping[str, Any]) -> list[Finding]:
    """Check that ``metrics.jsonl`` is as the run wrote it."""
    expected = receipt.get("metrics_sha256")
    if expected is None or receipt.get("state") == "training":
        return [skipped("verify.metrics", "no hash in run.json: the run failed, was killed or is under way")]
    return [check_file("verify.metrics", folder / "metrics.jsonl", expected)]


def _adapter(folder: Path, receipt: Mapping[str, Any]) -> list[Finding]:
    expected = receipt.get("adapter_files")
    if not expected:
        return [skipped("verify.adapter", "the run has no adapter yet")]
    findings = [check_file("verify.adapter", folder / "adapter" / name, digest) for name, digest in expected.items()]
    more = sorted(path.name for path in (folder / "adapter").iterdir() if path.name not in expected)
    if more:
        place = str(folder / "adapter")
        findings.append(warning("verify.adapter", f"holds files the run did not write: {', '.join(more)}", where=place))
    return findings


def _checkpoints(folder: Path, receipt: Mapping[str, Any]) -> list[Finding]:
    listed = {entry["name"]: entry["manifest_sha256"] for entry in receipt.get("checkpoints", [])}
    there = {path.name: path for _, path in checkpoints.folders(folder / "checkpoints")}
    findings = []
    for name in sorted({*listed, *there}):
        place = str(folder / "checkpoints" / name)
        if name not in there:
            fix = "restore it, or leave it: the adapter does not need it"
            findings.append(warning("verify.checkpoint", "is named in run.json but missing", fix, place))
            continue
        try:
            found = checkpoints.read(there[name])
        except DamagedCheckpointError as exc:
            fix = "restore it from a copy; --resume auto uses the newest complete one"
            findings.append(error("verify.checkpoint", str(exc), fix, place))
            continue
        if listed.get(name, found.manifest_sha256) != found.manifest_sha256:
            message = "is complete but not the one in run.json"
            findings.append(error("verify.checkpoint", message, _RESTORE, place))
        else:
            findings.append(ok("verify.checkpoint", f"is complete: {len(found.files)} files", place))
    return findings


def _data(receipt: Mapping[str, Any]) -> list[Finding]:
    return [_input("verify.data", Path(entry["path"]), entry["sha256"]) for entry in receipt.get("data", [])]


def _base(receipt: Mapping[str, Any]) -> list[Finding]:
    base = receipt.get("base_model")
    if not base:
        return [skipped("verify.base_model", "run.json records no files of the base model")]
    if not is_local(base["name"]):
        message = f"{base['name']} comes from the hub, which addresses files by their hashes"
        return [skipped("verify.base_model", message)]
    folder = Path(base["name"]).expanduser()
    return [_input("verify.base_model", folder / name, digest) for name, digest in base["files"].items()]


def _input(id: str, path: Path, expected: str) -> Finding:  # noqa: A002 - the finding's own name
    if not path.exists():
        return skipped(id, "is not on this machine", where=str(path))
    return check_file(id, path, expected, "restore the run's file, or train again")


def check_file(id: str, path: Path, expected: str, fix: str = _RESTORE) -> Finding:  # noqa: A002 - the finding's own name
    """Compare a file's SHA-256 with the receipt's."""
    try:
        digest = file_sha256(path)
    except OSError as exc:
        return error(id, f"cannot be read ({exc.strerror})", fix, str(path))
    if digest != expected:
        return error(id, f"differs from run.json: {digest[:12]}… instead of {expected[:12]}…", fix, str(path))
    return ok(id, "is as the run wrote it", str(path))
