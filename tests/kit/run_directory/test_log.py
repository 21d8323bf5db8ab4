"""What a run says is in its folder too: plain lines, each once, whatever a terminal was shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from kit.cli.console import say
from kit.run_directory.clearing import clear
from kit.run_directory.log import RunLog
from kit.run_directory.names import LOG

TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"


@pytest.fixture(autouse=True)
def coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)


def _lines(folder: Path) -> list[str]:
    return (folder / LOG).read_text(encoding="utf-8").splitlines()


def test_what_was_said_before_and_after_is_kept_without_colours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLog() as log:
        say("before", "bold")
        log.begin(tmp_path, ["some.yaml", f"wandb.api_key={TOKEN}"])
        say("after", "red")
        say("said in the\nmiddle", lines=True)
    say("no more of the run's")
    first, *lines = _lines(tmp_path)
    assert first.endswith("  kit train some.yaml wandb.api_key=[redacted]")
    assert lines == ["before", "after", "said in the", "middle"]
    shown = capsys.readouterr().err
    assert shown.startswith("\x1b[1mbefore")
    assert shown.endswith("no more of the run's\n")


def test_a_bar_that_is_redrawn_leaves_none_of_its_states_between_the_lines(tmp_path: Path) -> None:
    with RunLog() as log:
        log.begin(tmp_path, [])
        with tqdm(total=3, leave=False, file=sys.stderr, mininterval=0) as bar:
            for step in range(3):
                bar.update()
                tqdm.write(f"step {step}", file=sys.stderr)
        say("saved")
    assert _lines(tmp_path)[1:] == ["step 0", "step 1", "step 2", "saved"]


def test_no_secret_and_no_command_for_a_terminal_is_in_it(tmp_path: Path) -> None:
    with RunLog() as log:
        log.begin(tmp_path, [])
        print(f"Authorization: Bearer {TOKEN} \x1b]0;mine\x07", file=sys.stderr)
    assert _lines(tmp_path)[1:] == ["Authorization: Bearer [redacted] \\u001b]0;mine\\u0007"]


def test_a_session_that_goes_on_adds_to_it_and_a_new_run_begins_it_anew(tmp_path: Path) -> None:
    for words in ("first", "second"):
        with RunLog() as log:
            log.begin(tmp_path, ["--resume", "auto"])
            say(words)
    assert [line for line in _lines(tmp_path) if "kit train" not in line] == ["first", "second"]
    assert clear(tmp_path) == []
    assert not (tmp_path / LOG).exists()


def test_a_run_goes_on_where_nothing_can_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").write_text("mine", encoding="utf-8")
    (tmp_path / LOG).symlink_to(tmp_path / "precious")
    with RunLog() as log:
        log.begin(tmp_path, [])
        say("still heard")
    assert "still heard" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "mine"
