"""Tokenizer folders for tests, around any chat template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ChatFolder = Callable[..., Path]
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('no ' + message['role']) }}{% endif %}"
    "{% endfor %}"
)
# As Mistral-7B-Instruct-v0.2 had it until September 2024: nothing between the prompt and the answer.
TIGHT = MISTRAL.replace("{{ ' ' + message", "{{ message")
# No special token but the first and the last.
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}Answer:\n"
    "{{ message['content'] + '\n\n' }}{% else %}{{ message['role'] + ': ' + message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Answer:\n{% endif %}"
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' + message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_chat_folder(folder: Path, template: Any = MISTRAL, style: str = "bytes", **config: Any) -> Path:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``.

    The styles are ``bytes``, as the demo's tokenizer; ``legacy``, as Mistral 7B's tokenizer.json; ``metaspace``, as
    transformers 5 builds it; and ``joined`` and ``pieces``, as those two with tokens that join the end of a prompt
    and the beginning of an answer, as Mistral's ``]{`` does.
    """
    tokenizer = _byte_tokenizer() if style == "bytes" else _sentencepiece_tokenizer(style)
    if template == CHATML:
        tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
        config = {"eos_token": "<|im_end|>", **config}
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": style == "legacy",
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
        **config,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    # transformers 5 takes tokenizer.json as it is for a Mistral; for a Llama it builds another one from its vocabulary.
    (folder / "config.json").write_text('{"model_type": "mistral"}', encoding="utf-8")
    return folder


def _byte_tokenizer() -> Any:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    from kit.demo.tokenizer import byte_tokenizer

    return byte_tokenizer()


def _sentencepiece_tokenizer(style: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))  # noqa: S106 - a token, no secret
    if style in {"legacy", "joined"}:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    corpus = ["Write the word amber backwards. The quick brown fox says hello, and the answer is here."]
    if style in {"joined", "pieces"}:
        corpus.append(']{]{]{]{]{][][][]([(]"]" ]{ ][ ](' * 3 + "].].]I]I]T]T:\n:\n:\n\n\n\n")
    tokenizer.train_from_iterator(corpus * 20, trainer)
    # Bytes are ordinary tokens in Mistral's file, not special ones.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    return Tokenizer.from_str(json.dumps(content))
