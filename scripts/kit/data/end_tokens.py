"""The tokens that end an answer: eos_token, what ``generation_config.json`` names, and what the template writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.model.files import ModelFileError, find, read_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class EndTokens:
    """Where an answer ends."""

    ids: tuple[int, ...]  # the eos_token's first
    turn_end: str  # the special token that the template writes behind an answer; empty for none
    is_declared: bool  # other programs stop there too: it is the eos_token, or the model's files name it


def end_tokens(eos: int, turn_end: tuple[str, int | None], declared: tuple[int, ...]) -> EndTokens:
    """Join the eos_token, the template's token and its id, and the ids that the model's files declare."""
    text, token = turn_end
    if token is None:
        return EndTokens(tuple(dict.fromkeys((eos, *declared))), "", is_declared=True)
    return EndTokens(tuple(dict.fromkeys((eos, *declared, token))), text, is_declared=token in {eos, *declared})


def declared_ends(
    name_or_path: str, revision: str | None, is_token: Callable[[int], bool], *, download: bool
) -> tuple[int, ...]:
    """Return the ``eos_token_id`` of generation_config.json; of config.json where there is none, as transformers does.

    Raises:
        ModelFileError: The file is broken, or names what is no token.
    """
    for name in (_GENERATION_CONFIG, "config.json"):
        try:
            path = find(name_or_path, name, revision, download=download)
        except ModelFileError:
            continue
        named = read_json(path).get("eos_token_id")
        ids = [] if named is None else named if isinstance(named, list) else [named]
        for one in ids:
            if type(one) is not int or not is_token(one):
                raise ModelFileError(
                    f"{path}: eos_token_id names {json.dumps(one)[:40]}, which is no token of the tokenizer; "
                    "name the ids of the tokens that end an answer, or download the model again"
                )
        return tuple(ids)
    return ()


def declare_ends(folder: Path, ids: tuple[int, ...]) -> None:
    """Name every end token in a folder's generation_config.json, so that any program stops there; no more than needed.

    Raises:
        ModelFileError: The file is broken.
    """
    declared = declared_ends(str(folder), None, lambda _id: True, download=False)
    if set(ids) <= set(declared):
        return
    path = folder / _GENERATION_CONFIG
    content = read_json(path) if path.exists() else {}
    content["eos_token_id"] = list(dict.fromkeys((*declared, *ids)))
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
