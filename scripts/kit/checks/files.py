"""Rules on the files a run needs: the rows and the base model. The only rules that look at the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.files.regular_files import NOT_REGULAR
from kit.model.files import DEMO_BASE, is_local

if TYPE_CHECKING:
    from kit.checks.context import CheckContext


def data_files(run: CheckContext) -> list[Finding]:
    """Check that each data file is readable and not empty."""
    data = run.settings.data
    found = [_data_file(run, "data.train_file", Path(data.train_file))]
    if data.val_file is not None:
        found.append(_data_file(run, "data.val_file", Path(data.val_file)))
        if _same(Path(data.train_file), Path(data.val_file)):
            message = "data.train_file and data.val_file are the same file, so evaluation would measure memory"
            fix = "split the rows into two files, or data.val_file=null"
            found.append(error("config.data.same_file", message, fix, run.where("data.val_file")))
    return found


def _data_file(run: CheckContext, key: str, path: Path) -> Finding:
    where, expanded = run.where(key), path.expanduser()
    fix = f"{key}=PATH; one JSON object per line, as in data/sample/train.jsonl"
    try:
        if not expanded.exists():
            return error("config.data.missing", f"{key}: {path} does not exist", fix, where)
        if not expanded.is_file():
            is_folder = expanded.is_dir()
            kind, what = ("directory", "a directory, not a JSONL file") if is_folder else ("special", NOT_REGULAR)
            return error(f"config.data.{kind}", f"{key}: {path} is {what}", fix, where)
        if not os.access(expanded, os.R_OK):
            message = f"{key}: {path} is not readable by this user"
            return error("config.data.unreadable", message, f"chmod u+r '{path}'", where)
        if expanded.stat().st_size == 0:
            return error("config.data.empty", f"{key}: {path} is empty", fix, where)
    except OSError as exc:
        return error("config.data.unreadable", f"{key}: {path} cannot be read: {exc.strerror}", fix, where)
    return ok("config.data.found", f"{key}: {path} exists", where)


def _same(first: Path, second: Path) -> bool:
    try:
        return first == second or first.expanduser().samefile(second.expanduser())
    except OSError:
        return False


def model_path(run: CheckContext) -> list[Finding]:
    """Refuse a model path that looks local and is not there: the hub would be asked for it otherwise."""
    key = "model.model_name_or_path"
    name, where = run.settings.model.model_name_or_path, run.where(key)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return [ok("config.model.found", f"{key}: {name} exists", where), *_revision_of_a_folder(run)]
        fix = "copy the model's complete directory there"
        return [error("config.model.incomplete", f"{key}: {name} has no config.json, so it is not a model", fix, where)]
    if not is_local(name):
        return []
    if name == DEMO_BASE:
        return [skipped("config.model.demo", f"{key}: the demo's base model does not exist yet", "make demo", where)]
    fix = f"{key}=DIRECTORY, or the model's name on the hub, such as mistralai/Mistral-7B-Instruct-v0.2"
    return [error("config.model.missing", f"{key}: there is no directory {name}", fix, where)]


def _revision_of_a_folder(run: CheckContext) -> list[Finding]:
    key, model = "model.revision", run.settings.model
    if model.revision is None:
        return []
    message = f"{key} is {model.revision}, but {model.model_name_or_path} is a local directory, which has no revisions"
    return [warning("config.model.revision", message, f"{key}=null", run.where(key))]
