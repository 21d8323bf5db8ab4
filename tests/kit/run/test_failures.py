"""What ends a run is said in a sentence with its fix; a bug stays a bug."""

from __future__ import annotations

import errno

import pytest

from kit.run.failures import explain
from kit.run.watchdog import BadLoss, BadLossError


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
        (OSError(errno.EDQUOT, "Disk quota exceeded", "outputs/x"), "run.disk_full"),
        (RuntimeError('SafetensorError: IoError(Os { message: "No space left on device" })'), "run.disk_full"),
        (PermissionError(errno.EACCES, "Permission denied", "outputs/x"), "run.not_writable"),
        (OSError(errno.EROFS, "Read-only file system", "outputs/x"), "run.not_writable"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "models/x"), "run.file"),
        (OSError("models/x does not appear to have a file named model.safetensors"), "run.file"),
        (OSError(), "run.file"),
        (OSError(errno.EIO, "Input/output error", "outputs/x"), "run.disk"),
        (ValueError("the loss is nan at step 3"), "run.not_finite"),
        (FloatingPointError("loss is NaN"), "run.not_finite"),
        (BadLossError(BadLoss("zero", 9, "the loss has been exactly 0.0"), "rows.jsonl:3"), "run.bad_loss"),
    ],
)
def test_a_known_end_has_a_sentence_and_a_fix(exc: Exception, id: str) -> None:  # noqa: A002 - the field's own name
    finding = explain(exc)
    assert finding is not None
    assert (finding.id, finding.severity) == (id, "error")
    assert finding.fix
    assert finding.message
    assert "\n" not in finding.message


def test_the_way_out_of_memory_names_the_keys_that_keep_the_update() -> None:
    finding = explain(MemoryError())
    assert finding is not None
    assert "training.per_device_train_batch_size" in finding.fix
    assert "training.gradient_accumulation_steps" in finding.fix


def test_a_long_message_is_cut() -> None:
    finding = explain(OSError("x" * 5000))
    assert finding is not None
    assert len(finding.message) == 300


@pytest.mark.parametrize("exc", [KeyError("labels"), TypeError("no"), ValueError("no"), RuntimeError(""), IndexError()])
def test_a_bug_is_left_to_be_seen_whole(exc: Exception) -> None:
    assert explain(exc) is None
