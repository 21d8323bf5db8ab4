"""A check that fails itself is a finding, and its traceback is not lost."""

from __future__ import annotations

import errno
import tempfile
from typing import TYPE_CHECKING, NoReturn

import pytest

from kit.cli.findings import Finding, run_check

if TYPE_CHECKING:
    from pathlib import Path


def _found(exc: BaseException) -> Finding:
    def check() -> NoReturn:
        raise exc

    (finding,) = run_check(check, "data.audit")
    assert finding.severity == "error"
    return finding


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "exc", [KeyError("labels"), type("PanicException", (BaseException,), {})("labels")], ids=["Python's", "Rust's"]
)
def test_a_check_that_crashes_says_where_its_traceback_is(exc: BaseException, kept: Path) -> None:
    finding = _found(exc)
    (file,) = kept.iterdir()
    assert finding.id == "data.audit.crashed"
    assert finding.message.startswith(f"the check 'data.audit' crashed: {type(exc).__name__}: ")
    assert finding.fix == f"report this as a bug; the traceback is in {file}"
    assert "in check" in file.read_text(encoding="utf-8")


def test_what_the_system_refuses_a_check_is_no_bug_of_it() -> None:
    finding = _found(PermissionError(errno.EACCES, "Permission denied", "rows.jsonl"))
    assert finding.id == "data.audit.refused"
    assert "rows.jsonl: not allowed" in finding.message
    assert "bug" not in finding.fix


def test_ctrl_c_ends_a_check() -> None:
    with pytest.raises(KeyboardInterrupt):
        _found(KeyboardInterrupt())
