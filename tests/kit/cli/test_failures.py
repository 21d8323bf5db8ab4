"""What ends a run is one sentence with its fix; a check that fails itself is a finding that names its traceback."""

from __future__ import annotations

import errno
import tempfile
from typing import TYPE_CHECKING, NoReturn

import pytest

from kit.cli.failures import explain, run_check
from kit.supervise.watchdog import BadLoss, BadLossError

if TYPE_CHECKING:
    from pathlib import Path

    from kit.cli.findings import Finding


class OutOfMemoryError(RuntimeError):
    """As torch.cuda's."""


@pytest.mark.parametrize(
    ("exc", "id"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore lines"), "run.out_of_memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), "run.out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "run.out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "run.out_of_memory"),
        (MemoryError(), "run.out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device", "outputs/x"), "run.disk_full"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "run.network"),
        (ValueError("the loss is nan at step 3"), "run.not_finite"),
        (FloatingPointError("loss is NaN"), "run.not_finite"),
        (BadLossError(BadLoss("zero", 9, "the loss has been exactly 0.0"), "rows.jsonl:3"), "run.bad_loss"),
        (KeyError("labels"), "run.bug"),
        (TypeError("no"), "run.bug"),
        (RuntimeError(""), "run.bug"),
    ],
)
def test_each_end_has_a_sentence_and_a_fix(exc: Exception, id: str) -> None:  # noqa: A002 - the field's own name
    finding = explain(exc)
    assert (finding.id, finding.severity) == (id, "error")
    assert finding.fix
    assert finding.message
    assert "\n" not in finding.message


def test_the_way_out_of_memory_names_the_keys_that_keep_the_update() -> None:
    finding = explain(MemoryError())
    assert "training.per_device_train_batch_size" in finding.fix
    assert "training.gradient_accumulation_steps" in finding.fix


def _found(exc: BaseException) -> Finding:
    def check() -> NoReturn:
        raise exc

    (finding,) = run_check(check, "data.audit")
    assert finding.severity == "error"
    return finding


@pytest.fixture
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


@pytest.mark.usefixtures("kept")
def test_what_the_system_refuses_a_check_is_no_bug_of_it() -> None:
    finding = _found(PermissionError(errno.EACCES, "Permission denied", "rows.jsonl"))
    assert finding.id == "data.audit.refused"
    assert "rows.jsonl: not allowed" in finding.message
    assert "bug" not in finding.fix


@pytest.mark.usefixtures("kept")
def test_ctrl_c_ends_a_check() -> None:
    with pytest.raises(KeyboardInterrupt):
        _found(KeyboardInterrupt())
