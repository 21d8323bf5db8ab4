"""Text that tries to take the terminal over, at random places of what commands read: none of it may get through.

Quick commands are run in this process on a stand-in for a terminal, which keeps all that is written to it.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.cli.command import call
from kit.cli.console import show_answer
from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.redaction import guard_output
from kit.commands import module_of
from torture.fuzzing import FaultError, Mutant, scratch
from torture.hostile_text import MARK, ORDERS, faults_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from random import Random

_HASH = "f" * 64
_FILES = {"adapter_model.safetensors": _HASH}
_RECEIPT: dict[str, Any] = {
    "schema_version": 1, "state": "finished", "run_name": "run", "started_at": "2026-05-01T14:29:26+00:00",
    "argv": ["configs/a.yaml"], "config": {"training": {"run_name": "run", "max_steps": 2}}, "error": "OSError: no",
    "data": [{"path": "rows.jsonl", "sha256": _HASH, "rows": 4}], "stack": "current", "platform": "cpu", "steps": 2,
    "adapter_files": _FILES, "base_model": {"name": "base", "files": _FILES}, "packages": {"torch": "2.10.0"},
    "checkpoints": [{"name": "checkpoint-2", "manifest_sha256": _HASH}], "git_revision": "1234", "attention": "sdpa",
    "machine": {"system": "Linux", "arch": "x86_64", "cpu_model": "a CPU", "nvidia": {"gpus": [{"name": "a GPU"}]}},
}  # fmt: skip
_ROW: dict[str, Any] = {
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "source": "c",
}
# Ranges in which terminals find orders, and what hides or reorders text.
_RANGES = ((0x01, 0x1F), (0x7F, 0x9F), (0x200E, 0x200F), (0x2028, 0x202E), (0x2066, 0x2069), (0xD800, 0xDFFF))
_LONGEST_NAME = 200  # bytes; a file's has 255


@dataclass(frozen=True)
class TextFuzzer:
    """Hostile text in receipts, names, rows, configurations, arguments and answers; see ``Fuzzer``."""

    name: str = "texts"
    suffix: str = ".json"

    def mutant(self, source: Random) -> Mutant:
        """Put hostile text somewhere."""
        kind = source.choice(sorted(_KINDS))
        what = _KINDS[kind](source)
        return Mutant(kind, json.dumps(what).encode(), (what, source.randrange(1 << 30)))

    def judge(self, mutant: Mutant) -> dict[str, int]:
        """Run one command that reads it; see ``Fuzzer``."""
        what, chance = mutant.details
        folder = scratch("fuzz-texts-")
        try:
            command, argv = _laid_out(mutant.kind, what, chance, folder)
            with _screen() as screen:
                _run(command, argv)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if found := faults_on(screen.getvalue()):
            raise FaultError(f"{command or 'an answer'}: {'; '.join(found[:3])}")
        return {"shown" if MARK in screen.getvalue() else "not shown": 1}


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def _screen() -> Iterator[_Screen]:
    """Stand a terminal in for both streams."""
    before, shown = (sys.stdout, sys.stderr), _Screen()
    widths = os.environ.get("COLUMNS")
    sys.stdout = sys.stderr = shown
    os.environ["COLUMNS"] = "100000"  # a line is never broken by its length
    try:
        guard_output()
        yield shown
    finally:
        sys.stdout, sys.stderr = before
        os.environ.pop("COLUMNS")
        if widths is not None:
            os.environ["COLUMNS"] = widths


def _run(command: str, argv: list[str]) -> None:
    if not command:
        show_answer(argv[0])
        return
    try:
        call(importlib.import_module(module_of(command)), argv)
    except SystemExit:  # argparse, which has said why
        return


def _laid_out(kind: str, what: Any, chance: int, folder: Path) -> tuple[str, list[str]]:
    """Write what is to be read, and choose what reads it."""
    if kind == "an answer":
        return "", [what]
    if kind == "an argument":
        command = ("verify", "watch", "runs", "diff-run", "config", "data")[chance % 6]
        return command, [what if command != "runs" else f"--sort={what}"]
    if kind == "rows":
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in what), encoding="utf-8")
        return "data", [str(path), "--audit", "--processes", "1"]
    if kind == "a configuration":
        path = folder / "config.yaml"
        path.write_text(what, encoding="utf-8")
        return ("config", "validate-config")[chance % 2], [str(path)]
    run = folder / (what if kind == "a name" else "run")
    receipt = _RECEIPT if kind == "a name" else what
    for place in (run, folder / "other"):
        place.mkdir(exist_ok=True)
        (place / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
        (place / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n', encoding="utf-8")
    readers = [
        ("verify", [str(run)]), ("verify", [str(run), "--json"]), ("watch", [str(run)]),
        ("watch", [str(run), "--once"]),
        ("runs", ["--outputs", str(folder)]), ("diff-run", [str(run), str(folder / "other")]),
    ]  # fmt: skip
    return readers[chance % len(readers)]


def _hostile(source: Random) -> str:
    """Return a few words with orders between them, each followed by the mark."""
    text = source.choice(["", "a", "run", "a/b.jsonl"])
    for _ in range(source.randint(1, 4)):
        low, high = source.choice(_RANGES)
        order = source.choice(ORDERS) if source.random() < 0.6 else chr(source.randint(low, high))
        text += f"{order}{MARK}{source.choice(['', ' ', '     ok  ', 'x'])}"
    return text


def _somewhere(source: Random, value: Any) -> Any:
    """Put hostile text in place of about a third of all texts, and now and then under a key of its own."""
    if isinstance(value, str):
        return _hostile(source) if source.random() < 0.3 else value
    if isinstance(value, list):
        return [_somewhere(source, item) for item in value]
    if isinstance(value, dict):
        more = {_hostile(source): _hostile(source)} if source.random() < 0.2 else {}
        return {**{key: _somewhere(source, item) for key, item in value.items()}, **more}
    return value


def _name(source: Random) -> str:
    """Return one that a folder may have."""
    text = _hostile(source).replace("/", "|").encode("utf-8", "replace")[:_LONGEST_NAME].decode("utf-8", "ignore")
    return text if text not in {".", ".."} else "run"


def _configuration(source: Random) -> str:
    """Return a shipped one with hostile text in a value or as a key, quoted as YAML quotes it."""
    lines = (PROJECT_ROOT / "configs/training_config_demo.yaml").read_text(encoding="utf-8").split("\n")
    at = source.choice(
        [number for number, line in enumerate(lines) if ": " in line and not line.lstrip().startswith("#")]
    )
    key = lines[at].partition(":")[0]
    hostile = json.dumps(_hostile(source).encode("utf-8", "replace").decode())
    lines[at] = f"{key}: {hostile}" if source.random() < 0.7 else f"  {hostile}: 1"
    return "\n".join(lines)


_KINDS: dict[str, Callable[[Random], Any]] = {
    "a receipt": lambda source: _somewhere(source, _RECEIPT),
    "a name": _name,
    "rows": lambda source: [_somewhere(source, _ROW) for _ in range(3)],
    "a configuration": _configuration,
    "an argument": lambda source: _hostile(source).replace("\0", ""),
    "an answer": lambda source: "a" + _hostile(source).replace("\n", ""),  # it has lines of its own
}
