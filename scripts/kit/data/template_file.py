"""A model's chat template and the special tokens it is rendered with, read from the model's files."""

from __future__ import annotations

from typing import Any

from kit.data.template import ChatTemplate
from kit.model.files import ModelFileError, find, read_json, read_text

_LONGEST_TEMPLATE = 1 << 20  # bytes; the longest in use have some tens of thousands


def read_template(name_or_path: str, revision: str | None, date: str | None, *, download: bool) -> ChatTemplate:
    """Read a model's template, whose source is empty where it has none; nothing is compiled yet.

    Raises:
        ModelFileError: A file is missing or broken.
    """
    config = read_json(find(name_or_path, "tokenizer_config.json", revision, download=download))
    source = _template_source(name_or_path, config, revision, download=download)
    return ChatTemplate(source or "", _special_tokens(config), date)


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in config.items()}
    return {key: text for key, text in texts.items() if key.endswith("_token") and isinstance(text, str) and text}


def _template_source(name_or_path: str, config: dict[str, Any], revision: str | None, *, download: bool) -> str | None:
    try:
        path = find(name_or_path, "chat_template.jinja", revision, download=download)
    except ModelFileError:
        source = config.get("chat_template")
    else:
        # A file of its own wins over the configuration, as in transformers 5.
        if path.stat().st_size > _LONGEST_TEMPLATE:
            raise ModelFileError(f"{path}: is {path.stat().st_size:,} bytes long, and no template; download it again")
        return read_text(path)
    if isinstance(source, list):  # several named templates: the default one, as transformers does
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    return source if isinstance(source, str) else None
