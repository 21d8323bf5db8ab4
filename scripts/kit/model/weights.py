"""The hashes of a base model's files. Imports no machine-learning library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kit.files.digest import file_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from kit.model.base import Base

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def describe_base(base: Base) -> dict[str, Any]:
    """Return the SHA-256 of every file of a base that is read, and the commit its revision was resolved to.

    The hub's cache names each large file by its SHA-256, which is taken as is; all other files are hashed.

    Raises:
        OSError: A file cannot be read.
    """
    return {
        "name": base.name,
        "revision": base.revision,
        "revision_resolved": base.commit,
        "files": {name: _sha256(path, is_cached=base.commit is not None) for name, path in sorted(base.files.items())},
    }


def _sha256(path: Path, *, is_cached: bool) -> str:
    blob = path.resolve().name
    return blob if is_cached and _SHA256.match(blob) else file_sha256(path)
