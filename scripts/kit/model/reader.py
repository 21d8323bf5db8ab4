"""What a generation of the libraries reads of a base's files; each file in ``kit.stacks`` states its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """Who is to load a base.

    Attributes:
        stack: The generation's name.
        transformers: Its transformers, as a sentence names it.
        families: The ``model_type`` it knows.
        older_words: It reads the older words of ``config.json`` alone, and passes over what they cannot say.
        needs_format: It refuses safetensors that do not say that they were written for torch.
        older_tokenizers: It reads older forms of ``tokenizer.json`` alone.
        instead: The generation that reads more, for a fix.
    """

    stack: str
    transformers: str
    families: frozenset[str]
    older_words: bool = False
    needs_format: bool = False
    older_tokenizers: bool = False
    instead: str = ""
