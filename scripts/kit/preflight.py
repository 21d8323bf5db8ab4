"""Everything that can be found wrong with a run before it starts: rules, model, data, the folder it writes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit import rules
from kit.chat_tokenizer import ChatTokenizer
from kit.dataset import EncodedFile, load_file
from kit.findings import Finding, error, ok, run_check, skipped, warning
from kit.model_files import ModelFileError, is_local

if TYPE_CHECKING:
    from kit.config import Resolved
    from kit.machine import Machine
    from kit.platforms import Judgement
    from kit.settings import Settings
    from kit.stack import Stack


@dataclass(frozen=True)
class Preflight:
    """What was found, and the data it was found in.

    Attributes:
        findings: Of every check.
        tokenizer: The base model's; None where it could not be loaded.
        train: The training file; None where it could not be read.
        val: The validation file; None where there is none, or it could not be read.
    """

    findings: list[Finding]
    tokenizer: ChatTokenizer | None
    train: EncodedFile | None
    val: EncodedFile | None


def check_run(resolved: Resolved, judgement: Judgement, machine: Machine, stack: Stack, *, download: bool) -> Preflight:
    """Check one run against one machine.

    Args:
        resolved: The configuration.
        judgement: What the machine is good for.
        machine: The machine.
        stack: The installed stack.
        download: Whether the hub may be asked for the tokenizer.
    """
    findings = rules.check(resolved, judgement, machine, stack)
    tokenizer, model_findings = _load_tokenizer(resolved.settings, download=download)
    findings += model_findings
    train, train_findings = _load(resolved, "data.train_file", tokenizer)
    val, val_findings = _load(resolved, "data.val_file", tokenizer)
    findings += train_findings + val_findings
    if train and val:
        findings += run_check(lambda: leakage(train, val), "data.leakage")
    return Preflight(findings, tokenizer, train, val)


def _load_tokenizer(settings: Settings, *, download: bool) -> tuple[ChatTokenizer | None, list[Finding]]:
    model = settings.model
    try:
        tokenizer = ChatTokenizer.load(model.model_name_or_path, model.revision, download=download)
    except ModelFileError as exc:
        found, _, fix = str(exc).partition("; ")
        if download or is_local(model.model_name_or_path):
            return None, [error("model.tokenizer", found, fix)]
        return None, [skipped("model.tokenizer", f"{found}, so the data's tokens were not counted", fix)]
    return tokenizer, [ok("model.tokenizer", f"{model.model_name_or_path}: tokenizer and chat template load")]


def _load(resolved: Resolved, key: str, tokenizer: ChatTokenizer | None) -> tuple[EncodedFile | None, list[Finding]]:
    settings = resolved.settings
    name = settings.data.train_file if key == "data.train_file" else settings.data.val_file
    # A file that is not there, or empty, is a finding of the rules already.
    if name is None or tokenizer is None or not Path(name).is_file() or not Path(name).stat().st_size:
        return None, []
    loaded: list[EncodedFile] = []

    def load() -> list[Finding]:
        loaded.append(load_file(Path(name), tokenizer, settings.training.max_seq_length))
        return list(loaded[0].findings)

    findings = run_check(load, key)
    return (loaded[0] if loaded else None), findings


def leakage(train: EncodedFile, val: EncodedFile) -> list[Finding]:
    """Look for validation rows that are trained on too: what they measure is memory, not learning."""
    seen = {tuple(row.input_ids) for row in train.rows}
    lines = [row.line for row in val.rows if tuple(row.input_ids) in seen]
    if not lines:
        return [ok("data.leakage", f"none of the {len(val.rows):,} validation rows is trained on", where=str(val.path))]
    return [
        warning(
            "data.leakage",
            f"{len(lines):,} of {len(val.rows):,} validation rows are in {train.path} too, word for word",
            "take them out of one of the files: the validation loss would be too good",
            f"{val.path}:{lines[0]}",
        )
    ]


def run_directory_findings(settings: Settings, *, overwrite: bool) -> list[Finding]:
    """Check the folder the run writes to: writable, and no earlier run in it that would be lost."""
    folder = settings.run_directory
    if (folder / "run.json").exists() and not overwrite:
        return [
            error(
                "run.exists",
                "holds a run already",
                f"name this one: training.run_name={settings.training.run_name}-2, or replace that one: --overwrite",
                str(folder),
            )
        ]
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        return [error("run.folder", "is a file, and the run needs a folder there", "move it away", str(parent))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as exc:
        return [error("run.folder", f"cannot be written to ({exc.strerror})", "set training.output_dir", str(folder))]
    return []
