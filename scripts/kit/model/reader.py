"""What a generation of the libraries reads of a base's files; each file in ``kit.stacks`` states its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """Who is to load a base."""

    stack: str
    transformers: str  # its version, as a sentence names it
    families: frozenset[str]  # the model_type it knows
    older_words: bool = False  # reads only the older words of config.json, and passes over what they cannot say
    needs_format: bool = False  # refuses safetensors that do not say that they were written for torch
    older_tokenizers: bool = False  # reads only older forms of tokenizer.json
    instead: str = ""  # the generation that reads more, for a fix
