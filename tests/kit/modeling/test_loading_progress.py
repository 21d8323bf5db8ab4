"""A large base says that it is loaded, how far it is and how long it took; a small one says nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

from adapter_run import run_settings
from deep_base import write_deep_base
from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.quiet_libraries import quiet_imports
from kit.model.base import find_base
from kit.modeling import loading_progress
from kit.modeling.loading_progress import loading
from kit.modeling.model import load_base_model

if TYPE_CHECKING:
    from pathlib import Path

ALL_FROM_ONE_BYTE = """
import sys
sys.path[:0] = ["scripts", "tests"]
from pathlib import Path
from adapter_run import run_settings
from kit.modeling import loading_progress
from kit.modeling.model import load_base_model

loading_progress._FROM_BYTES = 1
loading_progress._EVERY_S = 0
base, out = map(Path, sys.argv[1:])
load_base_model(run_settings(base, out, quantization__load_in_4bit=False), "cpu")
"""
REFERENCE = PROJECT_ROOT / ".venv-reference" / "bin" / "python"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In 33 files."""
    return write_deep_base(tmp_path_factory.mktemp("deep"), hidden=32)


def load(base: Path, folder: Path) -> Any:
    return load_base_model(run_settings(base, folder, quantization__load_in_4bit=False), "cpu")


def test_a_log_gets_a_line_for_each_tenth(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading_progress, "_FROM_BYTES", 1)
    monkeypatch.setattr(loading_progress, "_EVERY_S", 0)
    load(base, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"loading {base} (0.0 GB) …"
    assert [line.split(" %")[0] for line in lines[1:-1]] == [f"loading: {tenth}0" for tenth in range(1, 10)]
    assert lines[-1].startswith("loaded in ")


def test_a_log_gets_no_lines_of_what_takes_no_time(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading_progress, "_FROM_BYTES", 1)
    monkeypatch.setattr(loading_progress, "_EVERY_S", 1000)
    load(base, tmp_path)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_terminal_gets_a_bar(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading_progress, "_FROM_BYTES", 1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    load(base, tmp_path)
    error = capsys.readouterr().err
    assert f"loading {base}:   0%|" in error
    assert "loading: " not in error
    assert error.splitlines()[-1].startswith("loaded in ")


def test_a_small_base_is_loaded_without_a_word(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_imports():
        load(base, tmp_path)
    assert capsys.readouterr().err == ""


def test_what_transformers_shows_elsewhere_is_its_own_again(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = type(logging.tqdm).__call__
    with pytest.raises(KeyError), loading("x", 2_000_000_000):
        raise KeyError
    assert type(logging.tqdm).__call__ is before
    assert capsys.readouterr().err == "loading x (2.0 GB) …\n"


def test_the_size_is_that_of_the_files_that_hold_weights(base: Path, tiny_base: Path) -> None:
    for folder in (base, tiny_base):
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        assert find_base(str(folder), None, download=False).weight_bytes == size


@pytest.mark.stacks
@pytest.mark.skipif(not REFERENCE.exists(), reason="there is no .venv-reference: make setup STACK=reference")
def test_the_older_transformers_is_shown_file_by_file(base: Path, tmp_path: Path) -> None:
    arguments = [str(REFERENCE), "-W", "ignore", "-c", ALL_FROM_ONE_BYTE, str(base), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("loading: ") == 9
