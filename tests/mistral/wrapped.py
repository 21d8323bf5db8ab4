"""Encode texts with transformers around the kit's tokenizer. Run as: PYTHON wrapped.py FOLDER OUT.json.

``wrapped`` is that, ``reloaded`` what comes back after saving; ``own`` what transformers makes of the folder by itself,
where this stack's transformers reads it. Each: ids with and without special tokens, and the decoded text.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from conversations import conversations
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Message
from kit.model.tokenizer_files import read_tokenizer


def _encoded(tokenizer: Any, texts: list[str]) -> list[list[Any]]:
    found = []
    for text in texts:
        ids = list(tokenizer(text, add_special_tokens=False).input_ids)
        decoded = [tokenizer.decode(ids, skip_special_tokens=skip) for skip in (True, False)]
        found.append([ids, list(tokenizer(text).input_ids), *decoded])
    return found


def main() -> None:
    """Encode what people say, alone and as it is rendered."""
    folder, out = sys.argv[1:]
    chat = ChatTokenizer.load(folder)
    texts = ["", " ", "</s>", "<s> a"]
    for turns in list(conversations().values())[:400]:
        texts += [content for _, content in turns]
        if turns[0][0] == "user":
            texts.append(chat.render([Message(*turns[0])]))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    tokenizer, _ = read_tokenizer(Path(folder) / "tokenizer.json")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
    found = {"wrapped": _encoded(wrapped, texts)}
    with tempfile.TemporaryDirectory() as saved:
        wrapped.save_pretrained(saved)
        found["reloaded"] = _encoded(AutoTokenizer.from_pretrained(saved), texts)
    try:
        found["own"] = _encoded(AutoTokenizer.from_pretrained(folder), texts)
    except Exception as exc:  # noqa: BLE001 - this stack does not read the form
        found["own"] = f"{type(exc).__name__}: {exc}"
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
