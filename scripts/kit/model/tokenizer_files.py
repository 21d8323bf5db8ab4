"""A base's tokenizer files as the installed library reads them. Imports neither torch nor transformers."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from kit.files.regular_files import read_text
from kit.model.files import ModelFileError, read_json
from kit.model.tokenizer_form import FormError, OlderForm, older_form

if TYPE_CHECKING:
    from pathlib import Path

_READS_TODAYS = (0, 20)  # merges as pairs came last
_TOKENIZER, _CONFIG = "tokenizer.json", "tokenizer_config.json"


def library_version() -> str:
    """Return the installed tokenizers library's version."""
    return metadata.version("tokenizers")


def read_tokenizer(path: Path, *, rendered: bool = False) -> tuple[Tokenizer, OlderForm]:
    """Read a ``tokenizer.json``, in an older form if the installed library needs one; see ``older_form``.

    Raises:
        ModelFileError: It is not a tokenizer, or has no form that this library reads correctly.
    """
    try:
        form = _form(read_text(path), rendered=rendered)
        tokenizer = Tokenizer.from_str(form.text)
    except FormError as exc:
        raise ModelFileError(f"{path}: {exc}") from exc
    except Exception as exc:  # the library raises bare exceptions for broken files
        raise ModelFileError(f"{path}: not a tokenizer ({exc}); download the model again") from exc
    # The kit pads and truncates rows itself.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, form


def make_readable(folder: Path) -> None:
    """Rewrite a copied tokenizer that this stack's libraries cannot read as it is.

    Both this stack's transformers and the newer one's can then read what a run saves.

    Raises:
        FormError: See ``older_form``.
    """
    path, config_path = folder / _TOKENIZER, folder / _CONFIG
    if not path.is_file():
        return
    form = _form(read_text(path))
    if not form.changes:
        return
    path.write_text(form.text, encoding="utf-8")
    if not config_path.is_file():
        return
    config = read_json(config_path)
    added = {str(token["id"]): token["normalized"] for token in json.loads(form.text)["added_tokens"]}
    # transformers 4 takes a token's flags from here and saves them.
    for number, token in (config.get("added_tokens_decoder") or {}).items():
        token["normalized"] = added.get(number, token.get("normalized", False))
    config_path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _form(text: str, *, rendered: bool = False) -> OlderForm:
    numbers = tuple(int(part) for part in library_version().split(".")[:2])
    return OlderForm(text) if numbers >= _READS_TODAYS else older_form(text, rendered=rendered)
