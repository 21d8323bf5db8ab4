"""What a generation of the libraries reads of a base's files; each file in ``kit.stacks`` states its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """What will load a base."""

    stack: str
    transformers: str  # its version, as messages name it
    families: frozenset[str]  # each model_type it supports
    older_words: bool = False  # reads only the older keys of config.json, and silently ignores the others
    needs_format: bool = False  # refuses safetensors without the format "pt"
    older_tokenizers: bool = False  # reads only older forms of tokenizer.json
    instead: str = ""  # the generation that reads more, for a fix
