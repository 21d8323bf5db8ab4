"""A base model's files on this machine: only what is named here is read, and all of it is hashed into the receipt.

Imports no machine-learning library.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.model.files import ModelFileError, find, read_json

if TYPE_CHECKING:
    from pathlib import Path

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, GENERATION = "config.json", "generation_config.json"
# An adapter's folder has copies of these, so that it is usable without the base's folder.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
# Copied into a merged model too, for programs that read older forms of the tokenizer.
OLDER_TOKENIZER_FILES = ("added_tokens.json", "tokenizer.model")
OPTIONAL = (GENERATION, *TOKENIZER_FILES, *OLDER_TOKENIZER_FILES)
# A plain file name, never a path.
_SHARD = re.compile(r"[\w][\w.-]*\.safetensors\Z")


@dataclass(frozen=True)
class Base:
    """A base model's files."""

    name: str  # its folder, or its name on the hub
    revision: str | None  # as asked for
    commit: str | None  # what the hub resolved the revision to; None for a folder
    folder: Path  # with config.json
    config: dict[str, Any]
    small: dict[str, Path]  # its other small files, by name
    shards: dict[str, Path]  # its safetensors files, by name
    index: Path | None  # of the shards; None for a single file

    @property
    def weight_bytes(self) -> int:
        """Size of the weights."""
        return sum(path.stat().st_size for path in self.shards.values())

    @property
    def files(self) -> dict[str, Path]:
        """All files that are read, by name."""
        index = {INDEX: self.index} if self.index else {}
        return {CONFIG: self.folder / CONFIG, **self.small, **index, **self.shards}


def find_base(name_or_path: str, revision: str | None, *, download: bool) -> Base:
    """Find a base's files in a folder, the cache or (``download=True``) the hub.

    Raises:
        ModelFileError: A required file is missing or broken; one sentence with its fix.
    """
    config = find(name_or_path, CONFIG, revision, download=download)
    is_cached = config.parent.parent.name == "snapshots"
    # All files come from one commit; cached files of a commit need no request to the hub.
    commit = config.parent.name if is_cached else revision
    index, shards = _weights(name_or_path, commit, config.parent, download=download)
    small = {}
    for name in OPTIONAL:
        with contextlib.suppress(ModelFileError):
            small[name] = find(name_or_path, name, commit, download=download)
    return Base(
        name_or_path,
        revision,
        commit if is_cached else None,
        config.parent,
        read_json(config),
        small,
        shards,
        index,
    )


def _weights(
    name_or_path: str, revision: str | None, folder: Path, *, download: bool
) -> tuple[Path | None, dict[str, Path]]:
    try:
        index = find(name_or_path, INDEX, revision, download=download)
    except ModelFileError:
        return None, {WHOLE: find(name_or_path, WHOLE, revision, download=download)}
    if (folder / WHOLE).exists():
        raise ModelFileError(
            f"{folder}: contains {WHOLE} and {INDEX}, which may be different weights; remove the wrong one"
        )
    names = shard_names(index)
    return index, {name: find(name_or_path, name, revision, download=download) for name in names}


def shard_names(index: Path) -> list[str]:
    """Return the names of an index's files.

    Raises:
        ModelFileError: It is broken, or names other files than safetensors in its own folder: a pickle could run code.
    """
    entries = read_json(index).get("weight_map")
    if not isinstance(entries, dict) or not entries or not all(isinstance(name, str) for name in entries.values()):
        raise ModelFileError(f"{index}: its weight_map names no files; download the model again")
    names = sorted(set(entries.values()))
    for name in names:
        if not _SHARD.match(name):
            raise ModelFileError(
                f"{index}: names {name!r}, but only safetensors files in its own folder are read; "
                "use a model saved as safetensors"
            )
    return names
