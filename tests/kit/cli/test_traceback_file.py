"""A failure's traceback: in a file that is named, and nothing in it harms who reads it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from kit.cli.mistakes import WrongUseError
from kit.cli.traceback_file import NAME, keep_traceback, tracebacks_in

TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"


def _fail(text: str) -> NoReturn:
    raise ValueError(text)


def _failure(text: str = "mine") -> ValueError:
    try:
        _fail(text)
    except ValueError as exc:
        return exc


def test_it_is_kept_in_the_folder_that_is_given_and_replaced_by_the_next(tmp_path: Path) -> None:
    assert keep_traceback(_failure("first"), tmp_path) == f"the traceback is in {tmp_path / NAME}"
    keep_traceback(_failure("second"), tmp_path)
    text = (tmp_path / NAME).read_text(encoding="utf-8")
    assert text.endswith("ValueError: second\n")
    assert "in _fail" in text
    assert "first" not in text
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_no_secret_and_no_command_for_a_terminal_is_in_it(tmp_path: Path) -> None:
    keep_traceback(_failure(f"\x1b]0;mine\x07 \x9b2J {TOKEN} \ud800"), tmp_path)
    text = (tmp_path / NAME).read_text(encoding="utf-8")
    assert TOKEN not in text
    assert "\\u001b]0;mine\\u0007 \\u009b2J [redacted] \\ud800" in text


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / NAME).symlink_to(precious)
    keep_traceback(_failure(), run)
    assert precious.read_text() == "mine"
    assert not (run / NAME).is_symlink()


def test_it_goes_elsewhere_where_the_folder_is_gone_and_the_folder_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    where = keep_traceback(_failure(), tmp_path / "gone")
    (kept,) = tmp_path.iterdir()
    assert where == f"the traceback is in {kept}"
    assert "ValueError: mine" in kept.read_text()


def test_where_it_can_be_kept_nowhere_the_way_to_see_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert "--debug" in keep_traceback(_failure(), tmp_path / "gone")


def test_a_run_that_fails_before_it_began_leaves_the_first_cause_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = tmp_path / "outputs" / "run"
    with tracebacks_in(run):
        assert keep_traceback(_failure("first")) == f"the traceback is in {run / NAME}"
        assert str(run) not in keep_traceback(_failure("second"))
    assert (run / NAME).read_text(encoding="utf-8").endswith("ValueError: first\n")


def test_what_leaves_a_run_is_kept_there_and_named_by_whoever_says_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine") as caught, tracebacks_in(tmp_path / "run"):
        _fail("mine")
    assert keep_traceback(caught.value) == f"the traceback is in {tmp_path / 'run' / NAME}"


def test_a_refusal_and_a_run_in_an_occupied_folder_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(WrongUseError), tracebacks_in(tmp_path / "run"):
        raise WrongUseError("a: is no run; name one")
    with tracebacks_in(None):
        where = keep_traceback(_failure())
    assert not (tmp_path / "run").exists()
    assert Path(where.removeprefix("the traceback is in ")).parent == tmp_path
