"""Everything that can be found wrong with a run before it starts: rules, model, data, the folder it writes to."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.audit.training_file import audit_training_file
from kit.checks.context import CheckContext
from kit.checks.plan import check_plan
from kit.checks.rules import check_rules
from kit.cli.command import found_and_fix
from kit.cli.failures import run_check
from kit.cli.findings import Finding, error, has_errors, ok, skipped, warning
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.dataset import EncodedFile, load_file
from kit.data.template_form import form_findings, template_findings
from kit.model.base import find_base
from kit.model.files import DEMO_BASE, ModelFileError, is_local
from kit.model.usability import base_findings
from kit.plan.padding_free import KEY, decided, decision, is_decided
from kit.run_directory.names import earlier_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.config.resolve import Resolved
    from kit.config.settings import Settings
    from kit.data.token_rows import TokenRows
    from kit.machine.facts import Machine
    from kit.machine.platforms import Judgement
    from kit.plan.alternatives import PlannedRun
    from kit.stacks.stack import Stack


# The folder that is named is none, or no model's: a rule says so, and there is nothing to look into.
_NO_MODEL = frozenset({"config.model.missing", "config.model.incomplete"})
# What the environment's checks and others come upon; the one that names the line or the file stays.
_SAID_BY_OTHERS = {
    "environment.wandb_missing": frozenset({"config.wandb.missing"}),
    "environment.four_bit": frozenset({"config.device.four_bit"}),
    "environment.model_incomplete": _NO_MODEL | {"model.weights", "model.tokenizer"},
}


@dataclass(frozen=True)
class Preflight:
    """What was found, and the data it was found in.

    Attributes:
        tokenizer: The base model's; None where it could not be loaded.
        train: The training file; None where it could not be read.
        val: The validation file; None where there is none, or it could not be read.
        resolved: The configuration that was checked: what it left to the data is decided in it.
        planned_run: The same, planned; None where the model's shape is not known.
    """

    findings: list[Finding]
    tokenizer: ChatTokenizer | None
    train: EncodedFile | None
    val: EncodedFile | None
    resolved: Resolved
    planned_run: PlannedRun | None = None


def check_run(resolved: Resolved, judgement: Judgement, machine: Machine, stack: Stack, *, download: bool) -> Preflight:
    """Check one run against one machine.

    With ``download`` the hub may be asked for the tokenizer.
    """
    findings = check_rules(CheckContext(resolved, machine, judgement, stack))
    tokenizer = None
    if not _NO_MODEL & {finding.id for finding in findings}:
        findings += run_check(lambda: check_base(resolved.settings, stack), "model.base")
        tokenizer, found = _load_tokenizer(resolved.settings, stack, download=download and not has_errors(findings))
        findings += found
    train, train_findings = _load(resolved, "data.train_file", tokenizer)
    val, val_findings = _load(resolved, "data.val_file", tokenizer)
    findings += train_findings + val_findings
    taken = [file for file in (train, val) if file and file.rows]
    if len(taken) > 1:
        findings += run_check(lambda: leakage(*taken), "data.leakage")
    for file in taken:
        length = resolved.settings.training.max_seq_length
        findings += run_check(functools.partial(audit_training_file, file, length), "data.audit")
    where = resolved.where(KEY)
    resolved = decided(resolved, judgement, stack, train.rows if train else None)
    if is_decided(resolved):
        findings.append(ok("config.levers.auto", decision(resolved), where))
    rows, held_out = (file.rows if file and file.rows else None for file in (train, val))
    planned, planned_run = check_plan(CheckContext(resolved, machine, judgement, stack), rows, held_out)
    return Preflight([*findings, *planned], tokenizer, train, val, resolved, planned_run)


def once(findings: Sequence[Finding]) -> list[Finding]:
    """Drop findings that repeat another check's."""
    said = {finding.id for finding in findings if finding.severity != "ok"}
    return [finding for finding in dict.fromkeys(findings) if not _SAID_BY_OTHERS.get(finding.id, frozenset()) & said]


def check_base(settings: Settings, stack: Stack) -> list[Finding]:
    """Judge the base's files as far as they are on this machine."""
    model = settings.model
    if model.model_name_or_path == DEMO_BASE and not Path(DEMO_BASE).exists():
        return []  # the tokenizer's finding says so
    try:
        base = find_base(model.model_name_or_path, model.revision, download=False)
    except ModelFileError as exc:
        found, fix = found_and_fix(exc)
        if is_local(model.model_name_or_path):
            return [error("model.weights", found, fix)]
        return [skipped("model.weights", f"{found}: weights not checked; train checks them after the download")]
    return base_findings(base, stack.traits.reader)


def _load_tokenizer(settings: Settings, stack: Stack, *, download: bool) -> tuple[ChatTokenizer | None, list[Finding]]:
    model = settings.model
    try:
        tokenizer = ChatTokenizer.load_for(settings, download=download)
    except ModelFileError as exc:
        found, fix = found_and_fix(exc)
        if model.model_name_or_path == DEMO_BASE and not Path(DEMO_BASE).exists():
            severity = error if download else skipped
            return None, [severity("model.tokenizer", f"{found}: the demo creates it on its first run", "make demo")]
        if download or is_local(model.model_name_or_path):
            return None, [error("model.tokenizer", found, fix)]
        return None, [skipped("model.tokenizer", f"{found}, so the data was not tokenised", fix)]
    return tokenizer, [
        ok("model.tokenizer", f"{model.model_name_or_path}: tokenizer and chat template load"),
        *form_findings(tokenizer, model.model_name_or_path, model.revision, stack.traits.reader),
        *template_findings(tokenizer, model.model_name_or_path),
    ]


def _load(resolved: Resolved, key: str, tokenizer: ChatTokenizer | None) -> tuple[EncodedFile | None, list[Finding]]:
    settings = resolved.settings
    name = settings.data.train_file if key == "data.train_file" else settings.data.val_file
    if name is None or tokenizer is None:
        return None, []
    loaded: list[EncodedFile] = []

    def load() -> list[Finding]:
        path = Path(name).expanduser()
        try:
            if not path.is_file() or not path.stat().st_size:
                return []  # a finding of the rules already
            loaded.append(load_file(path, tokenizer, settings.training.max_seq_length))
        except OSError as exc:
            return [error("data.unreadable", f"cannot be read ({exc.strerror})", f"{key}=PATH", str(path))]
        return list(loaded[0].findings)

    findings = run_check(load, key)
    return (loaded[0] if loaded else None), findings


def leakage(train: EncodedFile, val: EncodedFile) -> list[Finding]:
    """Find validation rows that are trained on too: they measure memory, not learning."""
    held_out = [_ids(val.rows, index) for index in range(len(val.rows))]
    validation = set(held_out)
    trained = {ids for index in range(len(train.rows)) if (ids := _ids(train.rows, index)) in validation}
    lines = [int(line) for line, ids in zip(val.rows.lines, held_out, strict=True) if ids in trained]
    if not lines:
        return [ok("data.leakage", f"none of the {len(val.rows):,} validation rows is trained on", where=str(val.path))]
    return [
        warning(
            "data.leakage",
            f"{len(lines):,} of {len(val.rows):,} validation rows are in {train.path} too",
            "remove them from one of the files: the validation loss would be too low",
            f"{val.path}:{lines[0]}",
        )
    ]


def _ids(rows: TokenRows, index: int) -> bytes:
    return hashlib.blake2b(rows.tokens_of(index)[0].tobytes(), digest_size=16).digest()


def run_directory_findings(settings: Settings, *, overwrite: bool) -> list[Finding]:
    """Check the folder the run writes to: writable, and no earlier run in it that would be lost.

    Leaves the disk as it was.
    """
    folder = settings.run_directory
    try:
        return _links(settings, folder) or _earlier_run(settings, folder, overwrite=overwrite) or _not_writable(folder)
    except OSError as exc:
        return [error("run.folder", f"cannot be written to ({exc.strerror})", "set training.output_dir", str(folder))]


def _links(settings: Settings, folder: Path) -> list[Finding]:
    """Refuse links that would have the run write, and delete, somewhere else than it says.

    ``outputs`` itself and ``training.output_dir`` may lead anywhere: they are the person's own words.
    """
    outside = not folder.resolve().is_relative_to(folder.parent.resolve())
    links = [folder] if settings.training.output_dir is None and folder.is_symlink() and outside else []
    if folder.is_dir():
        links += sorted(path for path in folder.iterdir() if path.is_symlink())
    fix = "remove the link; to write elsewhere: training.output_dir=…"
    return [error("run.link", f"is a link to {path.readlink()}", fix, str(path)) for path in links]


def _earlier_run(settings: Settings, folder: Path, *, overwrite: bool) -> list[Finding]:
    there = earlier_run(folder)
    if there and not overwrite:
        return [
            error(
                "run.exists",
                f"already holds a run ({', '.join(there)})",
                f"resume it: --resume auto; rename this run: training.run_name={settings.training.run_name}-2; "
                "or replace the old one: --overwrite",
                str(folder),
            )
        ]
    return []


def _not_writable(folder: Path) -> list[Finding]:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        return [error("run.folder", "is a file where the run directory belongs", "move it away", str(parent))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    finally:
        with contextlib.suppress(OSError):  # never made, or in use by another run since
            for path in missing:
                path.rmdir()
    return []
