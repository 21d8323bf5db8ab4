"""Files named by the hash of their bytes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kit.files.regular_files import open_regular

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path


def file_sha256(path: Path) -> str:
    """Hash a file's bytes, in bounded memory.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return open_file_sha256(file)


def open_file_sha256(file: BufferedReader) -> str:
    """Hash an open file from its beginning."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
