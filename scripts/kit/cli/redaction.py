"""Secrets taken out of every text the kit shows or writes: known ones by value, unknown ones by their form.

Standard library only, and for Python 3.9 on: ``kit.cli.console`` prints through it before anything is installed. What a
subprocess writes to the terminal by itself, and what a library writes past ``sys.stdout``, does not come by here.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from kit.cli.logins import expanded, hub_token, netrc_files
from kit.cli.screen import passing
from kit.files.regular_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

REDACTED = "[redacted]"
_SHORTEST_VALUE = 8  # characters: a shorter one would be found in words that mean something else
_SHORTEST_WORD = 12  # the same for a value of letters alone, such as "disabled"
# Variables that hold a secret, by the words in their names.
_SECRET_NAME = re.compile(
    r"(?i)(?:(?:^|_)(?:TOKEN|SECRET|PASS|CREDENTIALS?|(?:API|ACCESS|SECRET|PRIVATE|AUTH)_?KEY)|PASSWORD|PASSWD)$"
)
# Tokens with a form of their own, wherever they stand.
_TOKEN = re.compile(
    r"hf_[A-Za-z0-9]{20,200}|api_org_[A-Za-z0-9]{20,200}"  # Hugging Face
    r"|wandb_v\d+_[A-Za-z0-9_-]{20,200}"
    r"|gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{30,255}|glpat-[A-Za-z0-9_-]{20,200}"
    r"|py[p]i-AgE[A-Za-z0-9_-]{20,255}|npm_[A-Za-z0-9]{30,200}"
    # These begin as words end: risk-, box-.
    r"|(?<![A-Za-z0-9])(?:sk-(?=[A-Za-z_-]{0,60}\d)[A-Za-z0-9_-]{20,255}|xox[abeoprs]-[A-Za-z0-9-]{10,255}"
    r"|A(?:KIA|SIA)[0-9A-Z]{16}"
    r"|eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,4096})"  # a JSON web token
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{0,20000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
)
# The name and the password of an address; a number behind the colon is a port. Where a name stands alone, a long one
# with a digit in it is a token: people and services have others.
_ADDRESS = re.compile(
    r"(?i)(\b[a-z][a-z0-9+.-]{1,20}://)(?:[^\s/@:'\"<>]{0,255}:(?!\d{1,5}(?:[/\s'\"]|$))[^\s'\"<>]{1,512}"
    r"|(?=[^\s/@]{0,255}\d)[^\s/@:'\"<>]{16,255}:?)@"
)
_HEADER = re.compile(
    r"(?i)\b(authorization['\"]?\s{0,4}[:=]\s{0,4}['\"]?(?:bearer|basic|token)|bearer)\s{1,4}[\w.~+/=-]{12,4096}"
)
_OPTION = re.compile(r"(?i)(--[a-z0-9_-]{0,40}(?:token|secret|password|passwd|api[_-]?key)(?:=|\s))(?!-)\S{1,4096}")
# A name that says what its value is. Tokenizers have tokens of their own, which are no secrets.
_NAMED = re.compile(
    r"(?i)(?<![a-z0-9_-])([_-]{0,4}(?!(?:[a-z0-9]{1,20}_)?(?:bos|eos|pad|unk|sep|cls|mask|image|special|next|last|first)_token)"
    r"(?:[a-z0-9]{1,40}[_-]){0,6}(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|signature)"
    r"['\"]?(?:\s{0,4}[:=]\s{0,4}|%3d)['\"]?)"
    r"(?=[^\s'\"&,;)\]}]{0,100}\d)([^\s'\"&,;)\]}]{12,4096})"
)
# A Weights & Biases key is 40 hexadecimal digits, as every git revision is: only beside its name does it count as one.
_WANDB_KEY = re.compile(r"(?i)((?:wandb|api.?key)[^\n]{0,60}?(?<![0-9a-z]))[0-9a-f]{40}(?![0-9a-z])")
_FORTY_HEX = re.compile(r"[0-9a-fA-F]{40}\Z")
_SECRET_OPTION = re.compile(r"(?i)(?:^|[-_.])(?:token|secret|password|passwd|(?:api|access|secret|private)[-_]?key)$")


def redact(text: str) -> str:
    """Return the text with every secret in it replaced by ``[redacted]``; the same again for what was redacted."""
    for value in _known_values():
        if value in text:
            text = text.replace(value, REDACTED)
    return _by_form(text)


def redact_argv(argv: Sequence[str]) -> list[str]:
    """Return a command line as it may be written down: what follows ``--token`` or ``api_key=`` is always hidden."""
    shown: list[str] = []
    is_secret = False
    for argument in argv:
        name, equals, value = argument.partition("=")
        if is_secret and not argument.startswith("-"):
            shown.append(REDACTED)
        elif equals and (_SECRET_OPTION.search(name) or is_secret_value(value, name)):
            shown.append(f"{redact(name)}={REDACTED}")
        else:
            shown.append(redact(argument))
        is_secret = not equals and argument.startswith("-") and bool(_SECRET_OPTION.search(name))
    return shown


def redact_all(data: Any) -> Any:
    """Return JSON data with every text in it redacted; keys stay as they are."""
    if isinstance(data, str):
        return redact(data)
    if isinstance(data, dict):
        return {key: redact_all(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [redact_all(value) for value in data]
    return data


def is_secret_value(text: str, key: str = "") -> bool:
    """Tell whether a configuration's value is, or holds, a secret; ``key`` is its dotted name."""
    if redact(text) != text:
        return True
    return key.startswith("wandb.") and bool(_FORTY_HEX.match(text.strip()))


def guard_output() -> None:
    """Guard whatever this process prints from here on, libraries' logs, warnings and tracebacks among it.

    Secrets are taken out. What models, rows and receipts of others bring along cannot command the terminal: on stderr,
    which people read, and on a stdout that is a terminal; a program that reads stdout gets it as it is. A stream that
    was closed when the process began leads nowhere, and a terminal that is gone counts as a pipe nobody reads.
    """
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if not getattr(stream, "redacts", False):
            _guard(stream, is_read=stream is sys.stderr or stream.isatty())


@contextlib.contextmanager
def redrawing(stream: TextIO) -> Iterator[None]:
    """Let the kit's own cursor moves through in here: what is redrawn was written out before."""
    stream.redraws = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        stream.redraws = False  # type: ignore[attr-defined]


def discard_output(stream: TextIO) -> None:
    """Have a stream that cannot be written any more lead nowhere."""
    with contextlib.suppress(OSError, ValueError):  # it has no number, or is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _open_what_is_closed() -> None:
    """Open the null device for standard streams that are closed, so that no file opened later gets their numbers."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - a number


def _guard(stream: Any, *, is_read: bool) -> None:
    write, flush = stream.write, stream.flush

    def guarded_write(text: str) -> int:
        shown = redact(text)
        while_it_is_read(write, passing(shown, redraws=getattr(stream, "redraws", False)) if is_read else shown)
        return len(text)

    def while_it_is_read(method: Callable[..., Any], *arguments: str) -> None:
        try:
            method(*arguments)
        except OSError as exc:
            if exc.errno == errno.EIO:  # how a terminal says that it is gone
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from exc
            if not isinstance(exc, BrokenPipeError):
                exc.filename = "standard output" if stream is sys.stdout else "standard error"
            raise

    try:
        # On the stream itself, so that it stays what libraries ask for: a terminal, with a buffer and a number.
        stream.write, stream.flush = guarded_write, lambda: while_it_is_read(flush)
        stream.redacts = True
    except AttributeError:  # a stream that somebody put there, which takes no attributes
        return
    # What its encoding lacks is written out, as JSON does; in a C locale a name's bytes would come out as they are.
    if getattr(stream, "errors", None) in {"strict", "surrogateescape"}:
        stream.reconfigure(errors="backslashreplace")


def _by_form(text: str) -> str:
    """Replace what looks like a secret. Every pattern needs one of a few signs, which most texts lack."""
    if len(text) < _SHORTEST_VALUE:
        return text
    text = _TOKEN.sub(REDACTED, text)
    if "://" in text and "@" in text:
        text = _ADDRESS.sub(rf"\g<1>{REDACTED}@", text)
    lowered = text.lower()
    if "private key" in lowered:
        text = _PRIVATE_KEY.sub(REDACTED, text)
    if "bearer" in lowered or "authorization" in lowered:
        text = _HEADER.sub(rf"\g<1> {REDACTED}", text)
    if any(word in lowered for word in ("token", "secret", "passw", "key", "signature")):
        text = _NAMED.sub(rf"\g<1>{REDACTED}", _OPTION.sub(rf"\g<1>{REDACTED}", text))
    if "wandb" in lowered or "key" in lowered:
        text = _WANDB_KEY.sub(rf"\g<1>{REDACTED}", text)
    return text


def _known_values() -> list[str]:
    """Return the secrets this process knows, the longest first: one may be part of another."""
    environment = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and _can_be_secret(value)}
    if not environment:
        return _from_files()
    return sorted({*_forms(environment), *_from_files()}, key=len, reverse=True)


def _can_be_secret(value: str) -> bool:
    if len(value) < _SHORTEST_VALUE or (value.isalpha() and len(value) < _SHORTEST_WORD):
        return False
    # A file that holds one is none. pathlib's way raises where a value is too long for a name.
    return not (value.startswith(("/", "~", ".")) and os.path.exists(expanded(value)))  # noqa: PTH110


def _forms(values: set[str]) -> set[str]:
    """Add how a value is written in JSON and in an address; and line by line, since logs break lines."""
    from urllib.parse import quote

    lines = {line for value in values for line in value.splitlines() if len(line) >= _SHORTEST_VALUE} | values
    return {form for line in lines for form in (line, json.dumps(line)[1:-1], quote(line, safe=""))}


@functools.lru_cache(maxsize=1)
def _from_files() -> list[str]:
    """Read the logins that Hugging Face's and Weights & Biases' own tools keep in files; once a process."""
    token = hub_token()
    values = {_text_of(token).strip()}
    values |= set(re.findall(r"(?m)^\s*hf_token\s*=\s*(\S+)", _text_of(token.with_name("stored_tokens"))))
    for path in netrc_files():
        values |= set(re.findall(r"\bpassword\s+(\S+)", _text_of(path)))
    return sorted(_forms({value for value in values if _can_be_secret(value)}), key=len, reverse=True)


def _text_of(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read(100_000).decode("utf-8", "replace")
    except (OSError, ValueError):  # missing, or not ours to read
        return ""
