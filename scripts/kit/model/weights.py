"""The base model's files as they are on this machine, named by their hashes. Imports no machine-learning library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kit.data.dataset import file_sha256
from kit.model.files import ModelFileError, find, read_json

if TYPE_CHECKING:
    from pathlib import Path

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SMALL = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def describe_base(name_or_path: str, revision: str | None) -> dict[str, Any]:
    """Name the base model's files with their hashes, and the commit the hub resolved its revision to.

    Weights that are not on this machine yet are downloaded: the run needs them next. The hub's cache names each large
    file by its SHA-256, which is taken from there; everything else is read and hashed.

    Raises:
        ModelFileError: Its configuration or its weights cannot be had; the message is one sentence with its fix.
        OSError: A file cannot be read.
    """
    config = find(name_or_path, "config.json", revision, download=True)
    is_cached = config.parent.parent.name == "snapshots"
    # All files of one commit; and what is here of a commit that is named is taken without asking the hub.
    commit = config.parent.name if is_cached else revision
    paths = [config, *_weights(name_or_path, commit)]
    for name in _SMALL[1:]:
        try:
            paths.append(find(name_or_path, name, commit, download=True))
        except ModelFileError:
            continue
    return {
        "name": name_or_path,
        "revision": revision,
        "revision_resolved": commit if is_cached else None,
        "files": {path.name: _sha256(path, is_cached=is_cached) for path in sorted(paths)},
    }


def _weights(name_or_path: str, revision: str | None) -> list[Path]:
    try:
        index = find(name_or_path, _INDEX, revision, download=True)
    except ModelFileError:
        return [find(name_or_path, _WHOLE, revision, download=True)]
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    return [index, *(find(name_or_path, shard, revision, download=True) for shard in shards)]


def _sha256(path: Path, *, is_cached: bool) -> str:
    blob = path.resolve().name
    return blob if is_cached and _SHA256.match(blob) else file_sha256(path)
