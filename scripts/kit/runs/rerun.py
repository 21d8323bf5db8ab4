"""A rerun: the recorded configuration in a new folder and a new process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from kit.cli.findings import Finding, error
from kit.cli.foreground import SIGNALS, CtrlC, wait_for
from kit.cli.interpreter import PROJECT_ROOT
from kit.config import schema, yaml_writer
from kit.config.resolve import DEFAULT, Resolved
from kit.files.json_files import object_or_none, write_json
from kit.model.files import is_local
from kit.run_directory.names import RERUN, RERUN_CONFIG
from kit.run_directory.receipt import read_receipt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kit.run_directory.history import Run


def claim(folder: Path, run: Run, *, overwrite: bool) -> tuple[bool, Finding | None]:
    """Decide whether a rerun starts in its folder, resumes what is there, or leaves it alone.

    ``overwrite`` replaces a stopped rerun, or one of an earlier state of the run.

    Returns:
        Whether to resume; and an error where the folder must not be written to.
    """
    marker, there = object_or_none(folder / RERUN) or {}, read_receipt(folder)
    if marker.get("receipt_sha256") == run.receipt.get("sha256"):
        return there is not None and there.get("state") != "finished" and not overwrite, None
    place, elsewhere = str(folder), "name another folder: --out NAME"
    if marker.get("run") == str(run.folder):
        if overwrite:
            return False, None
        fix = f"replace it: --overwrite; or {elsewhere}"
        return False, error("reproduce.folder", "holds a rerun of an earlier state of this run", fix, place)
    if marker or there is not None or (folder.exists() and any(folder.iterdir())):
        return False, error("reproduce.folder", "holds something other than a rerun of this run", elsewhere, place)
    return False, None


def mark(folder: Path, run: Run, **facts: Any) -> None:
    """Record whose rerun the folder holds, and its result."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"schema_version": 1, "run": str(run.folder), "receipt_sha256": run.receipt.get("sha256"), **facts}
    write_json(folder / RERUN, content)


def write_config(folder: Path, run: Run, places: Mapping[str, str]) -> Path:
    """Write the configuration a run had, with its origins, for a run into another folder; return the file.

    Four things differ: where it writes, what it is called, that it reports to nobody, and that a model of the hub is
    asked for by the commit that was used. ``places`` says where files are now.
    """
    settings = run.settings
    origins = dict.fromkeys(schema.keys(), DEFAULT)
    origins |= {key: f"was: {origin}" for key, origin in (run.receipt.get("origins") or {}).items()}
    changes = {
        "training.output_dir": str(folder),
        "training.run_name": f"{settings.training.run_name[:89]}-reproduced",
        "training.report_to": "none",
        **places,
    }
    commit = (run.receipt.get("base_model") or {}).get("revision_resolved")
    if commit and not is_local(settings.model.model_name_or_path):
        changes["model.revision"] = commit
    path = folder / RERUN_CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    resolved = Resolved(path, settings, settings.as_mapping(), origins)
    heading = f"The configuration of the rerun in this folder; {RERUN} names the original run."
    rerun = resolved.with_changes(changes, dict.fromkeys(changes, "for the rerun"))
    yaml_writer.write_config(path, rerun, heading, may_replace=True)
    return path


def train_again(config: Path, *, resume: bool, threads: int | None) -> int:
    """Train in a child process and return its exit code; signals are passed on, so that it saves a checkpoint.

    ``threads`` are the run's CPU threads; None leaves them to torch.
    """
    how = ["--resume", "auto"] if resume else ["--overwrite"]
    command = [sys.executable, str(PROJECT_ROOT / "scripts" / "kit"), "train", str(config), *how]
    environment = dict(os.environ)
    if threads:
        environment.pop("MKL_NUM_THREADS", None)  # it would win
        environment["OMP_NUM_THREADS"] = str(threads)
    sys.stdout.flush()

    # A session of its own, since Ctrl-C reaches a whole process group. The child's results are talk here: stderr.
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment, stdout=2, start_new_session=True)

    ctrl_c = CtrlC()

    def pass_on(process: subprocess.Popen[bytes], number: int) -> None:
        if number == signal.SIGINT and ctrl_c.handle() == "again":
            process.kill()  # what was saved before is whole
        else:
            process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    return wait_for(start, SIGNALS, pass_on)
