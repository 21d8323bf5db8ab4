"""What ends a run is said in a sentence with its fix."""

from __future__ import annotations

import errno

import pytest

from kit.cli.failures import explain
from kit.supervise.watchdog import BadLoss, BadLossError


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
