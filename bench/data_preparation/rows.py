"""Rows and a tokenizer to measure with: made-up words as unevenly frequent as real ones, the same each time."""

from __future__ import annotations

import itertools
import json
import random
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VOCABULARY = 32_000
_WORDS = 60_000
_SENTENCE = (6, 18)  # words
# Marks what an assistant says, which trl needs to mask the rest and which others pass over.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}"
    "{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)


def make_rows(path: Path, count: int, seed: int = 1) -> None:
    """Write ``count`` chat rows, mostly of one question and one answer, some of two."""
    source = random.Random(seed)  # noqa: S311 - rows to measure with, not a secret
    text = _sentences(source)
    aside = path.with_suffix(".part")
    with aside.open("w", encoding="utf-8") as file:
        for number in range(count):
            turns = []
            for _ in range(2 if number % 10 == 0 else 1):
                turns.append({"role": "user", "content": " ".join(itertools.islice(text, source.randint(1, 2)))})
                turns.append({"role": "assistant", "content": " ".join(itertools.islice(text, source.randint(1, 4)))})
            file.write(json.dumps({"messages": turns}) + "\n")
    aside.replace(path)


def _sentences(source: random.Random) -> Iterator[str]:
    letters = string.ascii_lowercase
    words = ["".join(source.choices(letters, k=source.randint(2, 10))) for _ in range(_WORDS)]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(_WORDS)))  # Zipf's law
    while True:
        chosen = source.choices(words, cum_weights=weights, k=source.randint(*_SENTENCE))
        yield " ".join(chosen).capitalize() + source.choice(".?!")


def make_model(folder: Path, rows: Path) -> None:
    """Train a byte-level BPE tokenizer on some rows and write it with a chat template, as a model's folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from kit.demo.tokenizer import SPECIAL_TOKENS, save_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 - a token, no secret
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with rows.open(encoding="utf-8") as file:
        texts = (turn["content"] for line in file for turn in json.loads(line)["messages"])
        tokenizer.train_from_iterator(texts, trainer)
    save_tokenizer(tokenizer, folder, pad_token="</s>", chat_template=TEMPLATE)  # noqa: S106 - a token, no secret
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral"}), encoding="utf-8")
