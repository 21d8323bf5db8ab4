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

    ids: tuple[int, ...]  # the eos_token first
    turn_end: str  # the special token that the template writes after an answer; empty for none
    is_declared: bool  # other programs stop at turn_end too: it is the eos_token or in the model's files


def end_tokens(eos: int, turn_end: tuple[str, int | None], declared: tuple[int, ...]) -> EndTokens:
    """Join the eos_token, the template's end token (text and id) and the ids that the model's files declare."""
    text, token = turn_end
    if token is None:
        return EndTokens(tuple(dict.fromkeys((eos, *declared))), "", is_declared=True)
    return EndTokens(tuple(dict.fromkeys((eos, *declared, token))), text, is_declared=token in {eos, *declared})


def declared_ends(
    name_or_path: str, revision: str | None, is_token: Callable[[int], bool], *, download: bool
) -> tuple[int, ...]:
    """Return the ``eos_token_id`` of generation_config.json, or without one of config.json, as transformers does.

    Raises:
        ModelFileError: The file is broken, or an id is not in the tokenizer.
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
                    f"{path}: eos_token_id {json.dumps(one)[:40]} is not in the tokenizer; "
                    "list the ids of the tokens that end an answer, or download the model again"
                )
        return tuple(ids)
    return ()


def declare_ends(folder: Path, ids: tuple[int, ...]) -> None:
    """Add missing end tokens to a folder's generation_config.json, so that every program stops there.

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
