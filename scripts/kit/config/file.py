"""Read a configuration file's text, or explain in one sentence why not."""

from __future__ import annotations

import codecs
import difflib
from pathlib import Path

from kit.cli.findings import error
from kit.config.error import ConfigError
from kit.files.regular_files import NOT_REGULAR, NotRegularError, open_regular

MAX_BYTES = 1_000_000
_FOREIGN_BOMS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """Return the file's text; a UTF-8 byte order mark is accepted and dropped, since some editors write one.

    Raises:
        ConfigError: The file is missing, no regular file, unreadable, too large, or not UTF-8 text.
    """
    raw = _read_bytes(path)
    if len(raw) > MAX_BYTES:
        raise _refuse(
            path,
            "too_large",
            f"is larger than {MAX_BYTES:,} bytes, the limit for a configuration",
            "name the YAML configuration, not a data file",
        )
    if raw.startswith(_FOREIGN_BOMS):
        raise _refuse(path, "encoding", "is UTF-16 or UTF-32 text; UTF-8 is needed", "save the file as UTF-8")
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise _refuse(path, "binary", "contains a NUL byte, so it is not text", "name a YAML text file", line)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        message = f"is not UTF-8 text: byte 0x{raw[exc.start]:02x} cannot be read"
        raise _refuse(path, "encoding", message, "save the file as UTF-8", line) from exc


def _read_bytes(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise _refuse(path, "missing", "does not exist", _suggest_beside(path)) from exc
    except PermissionError as exc:
        raise _refuse(path, "unreadable", "is not readable by this user", f"chmod u+r '{path}'") from exc
    except IsADirectoryError as exc:
        raise _refuse(path, "directory", "is a directory, not a file", _suggest_from(path)) from exc
    except NotRegularError as exc:
        raise _refuse(path, "special", f"is {NOT_REGULAR}", "save it to a file and name that") from exc
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise _refuse(path, "unreadable", f"cannot be read: {reason}", "check the path") from exc
    except ValueError as exc:  # a path with a NUL character
        raise _refuse(path, "missing", "is not a valid path", "check the path") from exc


def _refuse(path: Path, what: str, message: str, fix: str, line: int | None = None) -> ConfigError:
    where = str(path) if line is None else f"{path}:{line}"
    return ConfigError([error(f"config.file.{what}", message, fix, where)])


def _suggest_beside(path: Path) -> str:
    try:
        present = [entry.name for entry in path.parent.iterdir() if entry.suffix in {".yaml", ".yml"}]
    except OSError:
        return f"create it, or check the directory: '{path.parent}' cannot be listed"
    near = difflib.get_close_matches(path.name, present, n=1)
    if near:
        return f"did you mean {path.parent / near[0]}?"
    return "name an existing file, such as configs/training_config.yaml"


def _suggest_from(directory: Path) -> str:
    try:
        inside = sorted(entry for entry in directory.iterdir() if entry.suffix in {".yaml", ".yml"})
    except OSError:
        inside = []
    return f"name a file in it, such as {inside[0]}" if inside else "name a YAML file"
