"""Explain system errors: one sentence and its fix for each kind, whichever library raises it.

Libraries raise the same refusal in types of their own, so its number is also searched in an exception's causes and
text. Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST = 300  # characters of a library's own words
_OUT_OF_MEMORY = ("out of memory", "t allocate memory", "cublas_status_alloc_failed")


@dataclass(frozen=True)
class Refusal:
    """One kind of refusal.

    Attributes:
        kind: ``disk_full``, ``disk``, ``not_writable``, ``file``, ``limit``, ``network``, ``library``, ``weights``,
            ``out_of_memory`` or ``refused``.
        message: What was refused, beginning with its place where it has one.
        fix: What to do.
    """

    kind: str
    message: str
    fix: str


_ANOTHER_DISK = "or write to another one (training.output_dir=…, OUTPUT=…)"
_LOOK_AT_IT = f"check the disk (dmesg, mount), {_ANOTHER_DISK}"
_REACH = "check the connection and repeat the command; local files need none (HF_HUB_OFFLINE=1)"
_LOOK_THERE = "check the path, and whether the file was moved or deleted"
_BY_NUMBER: dict[int, tuple[str, str, str]] = {
    errno.ENOSPC: ("disk_full", "the disk is full", "free some space"),
    errno.EDQUOT: (
        "disk_full",
        "this user's disk quota is exceeded",
        "free some space, or have the quota raised (quota -s)",
    ),
    errno.EFBIG: (
        "limit",
        "a file would exceed the size limit of this process or file system",
        f"raise the limit (ulimit -f), {_ANOTHER_DISK}",
    ),
    errno.EIO: ("disk", "the disk failed to read or write (input/output error)", _LOOK_AT_IT),
    errno.ENXIO: ("disk", "the device is gone", _LOOK_AT_IT),
    errno.ENODEV: ("disk", "the device is gone", _LOOK_AT_IT),
    errno.ESTALE: ("disk", "the network file system lost the file (stale handle)", f"remount it, {_ANOTHER_DISK}"),
    errno.EROFS: ("not_writable", "the file system is read-only", f"mount it writable, {_ANOTHER_DISK}"),
    errno.EACCES: ("not_writable", "not allowed (permission denied)", "give this user access to it"),
    errno.EPERM: ("not_writable", "not allowed (operation not permitted)", "give this user access to it"),
    errno.ENOENT: ("file", "does not exist (no such file or directory)", _LOOK_THERE),
    errno.EEXIST: ("file", "already exists", "check what else writes there"),
    errno.EISDIR: ("file", "is a folder where a file is needed", "move the folder away"),
    errno.ENOTDIR: ("file", "is a file where a folder is needed", "move the file away"),
    errno.ENOTEMPTY: ("file", "the folder is not empty", "check what else writes there"),
    errno.ELOOP: ("file", "is a loop of symlinks, or a symlink where none is followed", "remove the link"),
    errno.ENAMETOOLONG: (
        "file",
        "the name is too long",
        "shorten training.run_name or the folders above it",
    ),
    errno.EBUSY: ("file", "is in use by another program", "stop that program"),
    errno.ETXTBSY: ("file", "is a running program", "stop it first"),
    errno.EMFILE: ("limit", "too many files are open", "raise the limit: ulimit -n 4096"),
    errno.ENFILE: ("limit", "too many files are open on this machine", "stop the programs that hold them (lsof)"),
    errno.EAGAIN: ("limit", "no more processes or threads are allowed", "raise the limit (ulimit -u), or stop others"),
    errno.EPIPE: ("refused", "the process at the other end of a pipe has ended", "find out why, then repeat it"),
}
# What is meant even where an exception was not said to come from it.
_OF_A_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE}
_NUMBER = re.compile(r"(?i)(?:\bos error |\bos \{ code: |\[errno |\berrno[ :=]{1,3})(\d{1,3})\b")
_OF_A_NETWORK = {"requests", "urllib3", "httpx", "httpcore", "http", "ssl", "aiohttp"}
_NETWORK_NUMBERS = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.ETIMEDOUT}
_LIBRARY = re.compile(r"cannot open shared object file|undefined symbol|dlopen\(|image not found|GLIBC(?:XX)?_\S+' not")
_HOMELESS = "Could not determine home directory"  # pathlib's words for ~ without one
# torch's words for a write that failed do not say of what.
_FAILED_WRITE = re.compile(r"failed writing file|inline_container|basic_ios::clear|iostream error|unexpected pos \d")


def is_panic(exc: BaseException) -> bool:
    """Tell a Rust panic: not an Exception, and of no importable module."""
    return type(exc).__name__ == "PanicException"


def is_failure(exc: BaseException) -> bool:
    """Tell a failure from what ends a process on purpose, as Ctrl-C does."""
    return isinstance(exc, Exception) or is_panic(exc)


def is_out_of_memory(exc: BaseException) -> bool:
    """Tell a device's or a system's refusal of memory, by its words: CUDA, MPS and CPUs have no type in common."""
    return isinstance(exc, MemoryError) or any(words in str(exc).lower() for words in _OUT_OF_MEMORY)


def refusal_in(exc: BaseException) -> Refusal | None:
    """Find the system's refusal in an exception; None where there is none, and the exception is a bug's."""
    text = first_line(exc)
    if _LIBRARY.search(text):
        return Refusal("library", text, "make setup reinstalls matching packages; make detect checks the driver")
    if is_out_of_memory(exc):
        fix = "close other programs, or use a machine with more memory"
        return Refusal("out_of_memory", f"out of memory: {text or 'the system refused'}", fix)
    if any(_is_of_a_network(each) for each in _causes(exc)):
        what = "no answer in time" if isinstance(exc, TimeoutError) else "the network failed"
        return Refusal("network", f"{what}: {text or type(exc).__name__}", _REACH)
    for number, place in _numbers(exc):
        if number in _BY_NUMBER:
            kind, words, fix = _BY_NUMBER[number]
            if place:
                words = f"{place}: {words}"
            return Refusal(kind, text if kind == "file" and not place else words, fix)
    if _FAILED_WRITE.search(text):
        return Refusal("disk", f"a file could not be written: {text}", f"{_LOOK_AT_IT}; check its free space and quota")
    return _by_type(exc, text)


def _by_type(exc: BaseException, text: str) -> Refusal | None:
    if type(exc).__name__ in {"SafetensorError", "UnpicklingError"}:
        return Refusal("weights", f"a weights file is damaged: {text}", "download or copy it again")
    if _HOMELESS in text:
        return Refusal("file", "a path begins with ~, but that home folder does not exist", "write it in full")
    if isinstance(exc, OSError):
        kind = "refused" if exc.errno else "file"
        return Refusal(kind, text or type(exc).__name__, "check the file or address in the message")
    return None


def first_line(exc: BaseException) -> str:
    """Return the first line of an exception's text, cut."""
    text = str(exc).strip()
    return text.splitlines()[0][:_LONGEST] if text else ""


def _is_of_a_network(exc: BaseException) -> bool:
    if isinstance(exc, BrokenPipeError):
        return False
    if isinstance(exc, (ConnectionError, TimeoutError, socket.gaierror)):
        return True
    return type(exc).__module__.partition(".")[0] in _OF_A_NETWORK or getattr(exc, "errno", 0) in _NETWORK_NUMBERS


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from."""
    seen: set[int] = set()
    each: BaseException | None = exc
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__


def _numbers(exc: BaseException) -> Iterator[tuple[int, str]]:
    """Yield the errors' numbers that an exception brings along, each with its file, the likeliest first."""
    for each in _causes(exc):
        if isinstance(each, OSError) and each.errno:
            yield each.errno, os.fsdecode(each.filename) if isinstance(each.filename, (str, bytes)) else ""
        elif found := _NUMBER.search(str(each)):
            yield int(found[1]), ""
        else:
            lowered = str(each).lower()
            yield from ((number, "") for number in _OF_A_DISK if os.strerror(number).lower() in lowered)
    for each in _causes(exc):
        met = each.__context__
        if isinstance(met, OSError) and met.errno in _OF_A_DISK:
            yield met.errno, os.fsdecode(met.filename) if isinstance(met.filename, (str, bytes)) else ""
