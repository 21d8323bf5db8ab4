"""Find runs and read them back from their folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.cli.mistakes import WrongUseError
from kit.cli.traceback_file import NAME as ERROR_FILE
from kit.config.schema import completed
from kit.config.settings import Settings
from kit.config.validator import show, violations
from kit.files.json_files import read_object
from kit.files.regular_files import read_regular
from kit.run_directory.metrics_tail import parse_line

OUTPUTS = Path("outputs")
NEWEST = "newest"  # in place of a run's name


class RunError(WrongUseError):
    """A run cannot be found or read; the message names the place, what was found, and the fix after a semicolon."""


@dataclass(frozen=True)
class Run:
    """One run, read from its folder.

    Attributes:
        steps: The lines of ``metrics.jsonl`` that are training steps; ``loss`` is missing where it was not logged.
        evaluations: The lines that are evaluations: ``step`` and ``eval_loss``.
    """

    folder: Path
    receipt: dict[str, Any]
    steps: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    evaluations: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.receipt.get("run_name") or self.folder.name)

    @property
    def state(self) -> str:
        """``started``, ``training``, ``finished``, ``interrupted`` or ``failed``."""
        return str(self.receipt.get("state", "unknown"))

    @property
    def failure(self) -> str:
        """The error and the traceback's place of a failed run; empty for any other."""
        if self.state != "failed":
            return ""
        reason = str(self.receipt.get("error") or "run.json records no error")
        where = f"; its traceback: {self.folder / ERROR_FILE}" if self.receipt.get("error_file") == ERROR_FILE else ""
        return f"{reason}{where}"

    @property
    def settings(self) -> Settings:
        """The configuration it ran with; keys added since have their default.

        Raises:
            RunError: The receipt holds no configuration that a run could have had.
        """
        recorded = self.receipt.get("config")
        if not isinstance(recorded, dict):
            raise RunError(f"{self.folder}/run.json: has no configuration; train it again")
        values = completed(recorded)
        for wrong in violations(values):
            key = ".".join(wrong.path)
            raise RunError(
                f"{self.folder}/run.json: {key} cannot be {show(wrong.value)}; restore it, or train it again"
            )
        return Settings.from_mapping(values)

    @property
    def adapter(self) -> Path:
        """The trained adapter's folder.

        Raises:
            RunError: The run has none.
        """
        folder = self.folder / "adapter"
        if not (folder / "adapter_config.json").exists():
            raise RunError(f"{self.folder}: the run is {self.state} and has no adapter; finish it with --resume auto")
        return folder


def find_run(name: str, outputs: Path = OUTPUTS) -> Path:
    """Find a run directory by its path, its name under ``outputs/``, or ``newest``.

    Raises:
        RunError: There is no such run; the message lists those that are there.
    """
    if name == NEWEST:
        folders = run_directories(outputs)
        if not folders:
            raise RunError(f"{outputs}: no run yet; train one, or run make demo")
        return folders[-1]
    for folder in (Path(name).expanduser(), outputs / name):
        if (folder / "run.json").exists():
            return folder
    there = ", ".join(folder.name for folder in run_directories(outputs)) or "none"
    raise RunError(f"{name}: no such run directory, nor a run name in {outputs} (found: {there}); name one of them")


def run_directories(outputs: Path = OUTPUTS) -> list[Path]:
    """List the folders that hold a receipt, the one written last at the end."""
    receipts = [path for path in outputs.glob("*/run.json") if path.is_file()]
    return [path.parent for path in sorted(receipts, key=lambda path: (path.stat().st_mtime_ns, path))]


def read_run(folder: Path) -> Run:
    """Read a run, under way or over.

    Raises:
        RunError: The receipt is missing, unreadable, or not a receipt.
    """
    receipt = read_receipt(folder)
    lines = _metrics(folder / "metrics.jsonl")
    return Run(
        folder,
        receipt,
        tuple(line for line in lines if "eval_loss" not in line),
        tuple(line for line in lines if "eval_loss" in line),
    )


def read_receipt(folder: Path) -> dict[str, Any]:
    """Read a run's receipt alone.

    Raises:
        RunError: It is missing, unreadable, or not a receipt.
    """
    path = folder / "run.json"
    try:
        return read_object(path)
    except OSError as exc:
        raise RunError(f"{path}: cannot be read ({exc.strerror}); name a run directory") from exc
    except ValueError as exc:
        raise RunError(f"{path}: is not a receipt: it {exc}; restore it, or train again") from exc


def _metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines that are whole: a run that is being written, or was killed, ends in half of one."""
    try:
        text = read_regular(path).decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line for text_line in text.splitlines() if (line := parse_line(text_line)) is not None]
