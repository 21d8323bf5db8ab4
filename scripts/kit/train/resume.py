"""Resume a stopped run: from which checkpoint, and only as the same run.

Each checkpoint holds its run's identity: every configuration key that decides what is learnt, the rows, the
base model's files, the versions. Imports no torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.findings import Finding, error, ok, warning
from kit.config.schema import keys_with, with_defaults
from kit.files.numbers import mapping
from kit.run_directory import checkpoints
from kit.run_directory.checkpoints import Checkpoint, DamagedCheckpointError
from kit.run_directory.names import ADAPTER, CHECKPOINTS, RECEIPT, earlier_run
from kit.run_directory.receipt import read_receipt

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kit.config.settings import Settings
    from kit.data.batch_order import BatchOrder
    from kit.data.token_rows import TokenRows
    from kit.stacks.stack import Stack

MAY_DIFFER = frozenset(keys_with("may_differ"))
# The saved state has their shape.
CANNOT_CHANGE = frozenset({"lora.adapter_dtype", "lora.r", "lora.target_modules", "training.optim"})
_PIECE = 10_000  # numbers written at a time
_PACKAGES = (
    *("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate"),
    *("flash-attn", "flash-attn-3", "flash-attn-4"),
)


def identity_of(
    settings: Settings, plan: BatchOrder, stack: Stack, platform: str, base: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect everything that has to be the same for a resumed run to be the same run, flat, as JSON has it."""
    config = {
        f"{section}.{key}": list(value) if isinstance(value, tuple) else value
        for section, body in settings.as_mapping().items()
        for key, value in body.items()
        if f"{section}.{key}" not in MAY_DIFFER
    }
    return {
        **config,
        "platform": platform,
        "attention": stack.attention_of(settings, platform),
        "stack": stack.name,
        **{f"packages.{name}": stack.versions.get(name) for name in _PACKAGES},
        **{f"base_model.{name}": digest for name, digest in base["files"].items()},
        "data.rows": _digest(plan.rows),
        "data.order": _digest_of_order(plan),
        "data.eval_rows": _digest(plan.eval_rows),
    }


def _digest(rows: TokenRows) -> str:
    """Hash rows as they are trained on: the same file under another tokenizer or template is another."""
    digest = hashlib.sha256()
    for index in range(len(rows)):
        for numbers in rows.tokens_of(index):
            digest.update(len(numbers).to_bytes(8, "little") + numbers.astype("<i8").tobytes())
    return digest.hexdigest()


def _digest_of_order(plan: BatchOrder) -> str:
    """Hash what Python writes for the tuple of the order and the rows in an update, a piece at a time."""
    digest = hashlib.sha256(b"((")
    for begin in range(0, len(plan.order), _PIECE):
        piece = ", ".join(map(str, plan.order[begin : begin + _PIECE]))
        digest.update((f", {piece}" if begin else piece).encode())
    digest.update(f"{',' if len(plan.order) == 1 else ''}), {plan.batch_size})".encode())
    return digest.hexdigest()


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return (then, now) of every key that differs; one of the configuration that was not there had its default."""
    then = {**{key: value for key, value in with_defaults({}).items() if key in now}, **then}
    keys = sorted({*then, *now})
    return {key: (then.get(key), now.get(key)) for key in keys if then.get(key) != now.get(key)}


@dataclass(frozen=True)
class StartPoint:
    """How a run begins.

    Attributes:
        checkpoint: What it resumes from; None for a fresh start.
        findings: Errors among them forbid the start.
        is_finished: There is nothing left to do.
        allowed: (then, now) of each allowed difference.
        earlier: The resumed run's receipt; empty without one.
    """

    checkpoint: Checkpoint | None = None
    findings: list[Finding] = field(default_factory=list)
    is_finished: bool = False
    allowed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    earlier: dict[str, Any] | None = None


def decide(how: str, folder: Path, identity: Mapping[str, Any], allowed: Collection[str]) -> StartPoint:
    """Decide how a run with an identity (``identity_of``) begins.

    ``how`` is ``auto`` for the newest complete checkpoint in the run directory, or a path of a checkpoint or run;
    ``allowed`` are the keys that may differ this once.
    """
    there = read_receipt(folder)
    if there is None and (folder / RECEIPT).is_file():
        text = "is unreadable; the record of earlier sessions is lost"
        lost = [warning("resume.receipt", text, where=str(folder / RECEIPT))]
        start = _decide(how, folder, {}, identity, allowed)
        return replace(start, findings=[*lost, *start.findings])
    return _decide(how, folder, there or {}, identity, allowed)


def _decide(
    how: str, folder: Path, there: dict[str, Any], identity: Mapping[str, Any], allowed: Collection[str]
) -> StartPoint:
    if how != "auto":
        return _from_path(named(how), folder, there, identity, allowed)
    start = _automatic(folder, there, identity, allowed)
    # Where it begins, what was there is another run's, or this one's that had come to no checkpoint.
    return start if start == StartPoint() and _differs(there, identity, allowed) else replace(start, earlier=there)


def _differs(receipt: Mapping[str, Any], identity: Mapping[str, Any], allowed: Collection[str]) -> bool:
    """Tell whether a receipt is another run's."""
    return bool(differences(mapping(receipt.get("identity")), identity).keys() - set(allowed))


def _automatic(
    folder: Path, earlier: Mapping[str, Any], identity: Mapping[str, Any], allowed: Collection[str]
) -> StartPoint:
    if earlier.get("state") == "finished" and (folder / "adapter").is_dir():
        changed = differences(mapping(earlier.get("identity")), identity)
        # What differs now was allowed to then, or this is another run.
        return (
            StartPoint(is_finished=True) if not changed else StartPoint(findings=[_finished_otherwise(folder, changed)])
        )
    found, damaged = checkpoints.newest(folder / "checkpoints")
    if found is None and damaged:
        refused = error(
            "resume.nothing_complete",
            f"has {len(damaged)} checkpoints, none of them complete",
            "delete them and start over: --overwrite; or keep them and rename this run: training.run_name=…",
            str(folder / "checkpoints"),
        )
        return StartPoint(findings=[*damaged, refused])
    if found is None and (folder / ADAPTER).is_dir():  # its run is finished, or was, whatever the receipt says
        fix = "rename this run: training.run_name=…, or replace the old one: --overwrite"
        message = "holds an adapter but no checkpoint to resume from"
        return StartPoint(findings=[error("resume.adapter", message, fix, str(folder))])
    if found is None:
        return StartPoint()
    return _checked(found, damaged, earlier, identity, allowed)


def named(how: str) -> Path:
    """Return the folder that ``--resume PATH`` names, in full: a relative one need not show its name or its parents."""
    return Path(how).expanduser().resolve()


def run_of(path: Path) -> Path:
    """Return the run directory for what ``named`` found: the run itself, or one of its checkpoints."""
    return path.parent.parent if path.parent.name == CHECKPOINTS and not (path / RECEIPT).is_file() else path


def _from_path(
    path: Path, folder: Path, there: dict[str, Any], identity: Mapping[str, Any], allowed: Collection[str]
) -> StartPoint:
    run = run_of(path)
    receipt = read_receipt(run) or {}
    if (path / CHECKPOINTS).is_dir():
        found, damaged = checkpoints.newest(path / CHECKPOINTS)
        if found is None:
            fix = "name another run or checkpoint: --resume PATH"
            return StartPoint(findings=[*damaged, error("resume.none", "holds no complete checkpoint", fix, str(path))])
    else:
        try:
            found, damaged = checkpoints.read(path), []
        except DamagedCheckpointError as exc:
            fix = "use --resume auto for the newest complete one"
            return StartPoint(findings=[error("resume.damaged", f"{exc}; not a complete checkpoint", fix, str(path))])
    start = _checked(found, damaged, receipt, identity, allowed)
    if run == folder.resolve():
        return replace(start, earlier=receipt)
    if not earlier_run(folder):  # a run of its own there, whose beginning is the other's; not so at wandb
        return replace(start, earlier={key: value for key, value in receipt.items() if key != "wandb_id"})
    if there.get("state") == "finished" or _differs(there, identity, allowed):
        fix = "rename this run: training.run_name=…, or resume that one: --resume auto"
        return replace(start, findings=[*start.findings, error("run.exists", "holds another run", fix, str(folder))])
    return replace(start, earlier=there)


def _checked(
    found: Checkpoint,
    damaged: list[Finding],
    receipt: Mapping[str, Any] | None,
    identity: Mapping[str, Any],
    allowed: Collection[str],
) -> StartPoint:
    if not _is_the_receipts(found, receipt or {}):
        fix = (
            "restore it from a copy; or move it away and --resume auto takes the one before; or use it without its "
            f"receipt: move {found.folder} elsewhere, then --resume PATH"
        )
        message = "is complete but not the one in run.json; the kit did not write it"
        return StartPoint(findings=[*damaged, error("resume.not_the_runs", message, fix, str(found.folder))])
    changed = differences(found.facts.get("identity", {}), identity)
    refused = [
        _refusal(found, key, *values) for key, values in changed.items() if key not in allowed or key in CANNOT_CHANGE
    ]
    note = ok("resume.checkpoint", f"resumes after step {found.step:,}", str(found.folder))
    permitted = {key: values for key, values in changed.items() if key in allowed}
    return StartPoint(found, [*damaged, *(refused or [note])], allowed=permitted)


def _is_the_receipts(found: Checkpoint, receipt: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint is the one its run wrote down; a run that was killed has not written down its last."""
    listed = receipt.get("checkpoints")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    hashes = [entry.get("manifest_sha256") for entry in entries if entry.get("name") == found.folder.name]
    return not hashes or found.manifest_sha256 in hashes


def _refusal(found: Checkpoint, key: str, then: Any, now: Any) -> Finding:
    message = f"{key} is {_short(now)} but was {_short(then)} in the checkpoint"
    fresh = "a new run: training.run_name=…"
    if key in CANNOT_CHANGE:
        return error("resume.changed", f"{message}; the saved state depends on it", f"set it back, or {fresh}",
                     str(found.folder))  # fmt: skip
    fix = f"set it back; or record the change: --allow-changed {key}; or {fresh}"
    return error("resume.changed", message, fix, str(found.folder))


def _finished_otherwise(folder: Path, changed: Mapping[str, tuple[Any, Any]]) -> Finding:
    listed = ", ".join(f"{key} ({_short(then)}, now {_short(now)})" for key, (then, now) in changed.items())
    return error(
        "resume.finished",
        f"holds a finished run that differs in {listed}",
        "rename this run: training.run_name=…, or replace the old one: --overwrite",
        str(folder),
    )


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")  # noqa: PLR2004 - SHA-256 in hexadecimal
    return f"{text[:12]}…" if is_hash else text
