"""A tokenizer or a template that runs away ends in a sentence, within seconds, and takes nothing with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from chat_folders import MISTRAL
from kit.cli.interpreter import python_path
from kit.data import trial
from kit.data.chat_tokenizer import ChatTokenizer
from kit.model.files import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

    from chat_folders import ChatFolder

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
SECONDS = 60  # a test's patience on a busy machine; alone none takes 8


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'a' * 4000000000 }}", "its chat template takes more than 3 GB of memory"),
        ("{{ [0] * 900000000 }}", "its chat template takes more than 3 GB of memory"),
        ("{{ 'a' * 100000000 }}", "its chat template writes 100,000,000 characters for turns of "),
        (f"{LOOPS}{MISTRAL}", "its chat template does not finish"),
        (
            "{% if messages | length > 3 %}{{ 'a' * 4000000000 }}{% endif %}" + MISTRAL,
            "its chat template takes more than 3 GB of memory",
        ),
        (
            "{% if messages[0]['content'] | length > 9999 %}{{ 'a' * 4000000000 }}{% endif %}" + MISTRAL,
            "its chat template takes more than 3 GB of memory",
        ),
        (
            "{% if messages[1] and messages[1].thinking %}{{ 'a' * 4000000000 }}{% endif %}" + MISTRAL,
            "its chat template takes more than 3 GB of memory",
        ),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "its chat template is nested deeper than Python allows"),
        (f"{{{{ {'(' * 3000}1{')' * 3000} }}}}", "its chat template is nested deeper than Python allows"),
        ("{% if 1 %}" * 500 + "{% endif %}" * 500, "its chat template is nested deeper than Python allows"),
    ],
)
def test_a_template_that_runs_away_ends_in_a_sentence(chat_folder: ChatFolder, template: str, reason: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ModelFileError) as refused:
        ChatTokenizer.load(str(chat_folder(template)))
    assert f": {reason}" in str(refused.value)
    assert str(refused.value).endswith("; download the model again, or use another model")
    assert time.monotonic() - begun < SECONDS


def doubling(letter: str) -> dict[str, Any]:
    one = {"type": "Replace", "pattern": {"String": letter}, "content": letter * 2}
    return {"type": "Sequence", "normalizers": [one] * 34}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("normalizer", doubling("\u2603"), "its tokenizer.json (does not finish|takes more than 3 GB of memory)"),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAAAAAAA"}, "makes the library fail"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}, "makes the library fail"),
    ],
)
def test_a_tokenizer_that_runs_away_or_panics_ends_in_a_sentence(
    chat_folder: ChatFolder, key: str, value: Any, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = chat_folder()
    _edit(folder, key, value)
    with pytest.raises(ModelFileError, match=reason):
        ChatTokenizer.load(str(folder))
    assert capfd.readouterr().err == ""


def _edit(folder: Path, key: str, value: Any) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, key: value}), encoding="utf-8")


def test_json_that_is_nested_without_end_is_a_broken_tokenizer(chat_folder: ChatFolder) -> None:
    folder = chat_folder()
    (folder / "tokenizer.json").write_text('{"model":' * 500_000, encoding="utf-8")
    with pytest.raises(ModelFileError, match="not a tokenizer"):
        ChatTokenizer.load(str(folder))


def test_a_template_of_megabytes_is_not_read(chat_folder: ChatFolder) -> None:
    folder = chat_folder()
    (folder / "chat_template.jinja").write_text("a" * ((1 << 20) + 1), encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"chat_template\.jinja: is 1,048,577 bytes long"):
        ChatTokenizer.load(str(folder))


def test_memory_is_watched_where_the_system_bounds_none(
    chat_folder: ChatFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_MEMORY_BYTES", 300 << 20)  # of the one that watches; the child has its own limit
    template = "{% set much = 'a' * 500000000 %}" + LOOPS + MISTRAL
    with pytest.raises(ModelFileError, match="its chat template takes more than"):
        ChatTokenizer.load(str(chat_folder(template)))


def test_the_same_files_are_tried_once_and_others_anew(
    chat_folder: ChatFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    popen = subprocess.Popen

    def counted(*given: Any, **more: Any) -> Any:
        started.append(given)
        return popen(*given, **more)

    monkeypatch.setattr(trial.subprocess, "Popen", counted)
    folder = chat_folder("{{ bos_token }}once" + MISTRAL)
    for _ in range(3):
        ChatTokenizer.load(str(folder))
    assert len(started) == 1
    (folder / "chat_template.jinja").write_text("{{ bos_token }}anew" + MISTRAL, encoding="utf-8")
    ChatTokenizer.load(str(folder))
    assert len(started) == 2


def test_nothing_is_left_running_where_a_trial_is_broken_off(
    chat_folder: ChatFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(_child: Any) -> str:
        raise KeyboardInterrupt

    before = {one.pid for one in psutil.Process().children()}
    monkeypatch.setattr(trial, "_watch", broken_off)
    with pytest.raises(KeyboardInterrupt):
        ChatTokenizer.load(str(chat_folder(f"stopped{LOOPS}")))
    assert {one.pid for one in psutil.Process().children()} <= before


@pytest.mark.parametrize(
    ("code", "ran_away", "words", "reason"),
    [
        (0, "", b"", ""),
        (-signal.SIGSEGV, "", b"", "its chat template crashes the process that uses it (SIGSEGV)"),
        (
            -signal.SIGABRT,
            "",
            b"memory allocation of 99 bytes failed",
            "its chat template takes more than 3 GB of memory",
        ),
        (-signal.SIGABRT, "", b"", "its chat template crashes the process that uses it (SIGABRT)"),
        (-signal.SIGXCPU, "", b"", "its chat template does not finish"),
        (-signal.SIGKILL, "", b"", "its chat template takes more memory than this machine has"),
        (-signal.SIGKILL, "time", b"", "its chat template does not finish"),
        (-signal.SIGKILL, "memory", b"", "its chat template takes more than 3 GB of memory"),
    ],
)
def test_how_a_trial_ended_is_said(code: int, ran_away: str, words: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "stderr"
    path.write_bytes(words)
    with path.open("rb") as errors_file:
        assert trial._judge(code, ran_away, ['{"stage": "its chat template"}', "noise"], errors_file) == reason


def test_a_trial_imports_no_torch() -> None:
    code = "import sys, kit.data.trial; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": python_path()}, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_a_lower_limit_of_the_persons_own_is_kept() -> None:
    code = (
        "import resource, kit.data.trial as t; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
        "t._bound(resource.RLIMIT_AS, t._MEMORY_BYTES); "
        "print(resource.getrlimit(resource.RLIMIT_AS)[0])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": python_path()}, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) == 1 << 30
