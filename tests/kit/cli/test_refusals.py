"""Each refusal of a system has its own words, whichever library passes it on, and a bug has none of them."""

from __future__ import annotations

import errno
import os
import pickle
import socket

import pytest

from kit.cli.refusals import refusal_in


class SafetensorError(Exception):
    """As safetensors'."""


class PanicException(BaseException):
    """As Rust's bindings'."""


def _raised_from(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def _raised_while(outer: Exception, inner: Exception) -> Exception:
    outer.__context__ = inner
    return outer


_SHARED_OBJECT = "libcudart.so.12: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("exc", "kind", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "outputs/x"), "disk_full", "outputs/x: the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "outputs/x"), "disk_full", "quota"),
        (OSError(errno.EFBIG, "File too large", "outputs/x"), "limit", "outputs/x: a file would exceed the size limit"),
        (OSError(errno.EIO, "Input/output error", "outputs/x"), "disk", "outputs/x: the disk failed"),
        (OSError(errno.EROFS, "Read-only file system", "outputs/x"), "not_writable", "read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "outputs/x"), "not_writable", "outputs/x: not allowed"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "models/x"), "file", "models/x: does not exist"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), "file", "x: is a folder"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "file", "the name is too long"),
        (OSError(errno.EMFILE, "Too many open files", "x"), "limit", "too many files are open"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory", "out of memory"),
        (MemoryError(), "out_of_memory", "out of memory"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "network", "the network failed"),
        (TimeoutError("timed out"), "network", "no answer in time"),
        (socket.gaierror(-3, "Temporary failure in name resolution"), "network", "the network failed"),
        (OSError(_SHARED_OBJECT), "library", "libcudart.so.12"),
        (ImportError(_SHARED_OBJECT), "library", "libcudart.so.12"),
        (OSError(errno.EXDEV, "Invalid cross-device link"), "refused", "Invalid cross-device link"),
        (OSError("models/x does not appear to have a file named model.safetensors"), "file", "model.safetensors"),
        (OSError(), "file", "OSError"),
        # Libraries' own types, and words that hold the number.
        (
            SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
            "disk_full",
            "quota",
        ),
        (
            SafetensorError("Error while serializing: IoError(Os { code: 27, kind: FileTooLarge })"),
            "limit",
            "size limit",
        ),
        (RuntimeError('SafetensorError: IoError(Os { message: "No space left on device" })'), "disk_full", "full"),
        (RuntimeError(f"write failed: {os.strerror(errno.EROFS)}"), "not_writable", "read-only"),
        (
            RuntimeError("[enforce fail at inline_container.cc:595] . unexpected pos 128 vs 64"),
            "disk",
            "not be written",
        ),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "disk", "not be written"),
        (RuntimeError("basic_ios::clear: iostream error"), "disk", "not be written"),
        (_raised_from(ValueError("mine"), OSError(errno.EIO, "Input/output error", "x")), "disk", "x: the disk failed"),
        (_raised_while(ValueError("mine"), OSError(errno.ENOSPC, "No space", "x")), "disk_full", "x: the disk is full"),
        (SafetensorError("Error while deserializing header: header too large"), "weights", "damaged"),
        (pickle.UnpicklingError("invalid load key"), "weights", "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_kind_has_its_own_words(exc: BaseException, kind: str, said: str) -> None:
    refusal = refusal_in(exc)
    assert refusal is not None
    assert refusal.kind == kind
    assert said in refusal.message
    assert refusal.fix
    assert "\n" not in refusal.message
    assert "a run's folder must stay" not in refusal.fix


@pytest.mark.parametrize(
    "exc",
    [
        KeyError("labels"),
        RuntimeError(""),
        RecursionError("maximum recursion depth exceeded"),
        PanicException("index out of bounds"),
        # Looked for, not there, and something else went wrong then: no file is missing.
        _raised_while(KeyError("labels"), FileNotFoundError(errno.ENOENT, "No such file or directory", "x")),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_a_bug_is_no_refusal(exc: BaseException) -> None:
    assert refusal_in(exc) is None


def test_a_long_message_is_cut() -> None:
    refusal = refusal_in(OSError("x" * 5000))
    assert refusal is not None
    assert len(refusal.message) == 300
