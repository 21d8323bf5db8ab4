"""Write the tokenizer folders that the hub has served, from the SentencePiece models in mistral-common.

Run as: PYTHON folders.py DATA OUT, with the reference stack's Python: its conversion is the one the hub's files have.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from templates import V02_MARCH, V02_SEPTEMBER, V03

_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


def _write(folder: Path, model: Path, template: str, *, is_todays: bool) -> None:
    import sentencepiece
    from transformers import LlamaTokenizerFast

    folder.mkdir(parents=True)
    shutil.copy(model, folder / "tokenizer.model")
    fast = LlamaTokenizerFast(vocab_file=str(folder / "tokenizer.model"), from_slow=True, legacy=True)
    content: dict[str, Any] = json.loads(fast.backend_tokenizer.to_str())
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    there = {token["id"] for token in content["added_tokens"]}
    content["added_tokens"] += [
        {"id": number, "content": pieces.id_to_piece(number), **flags, "special": True}
        for number in range(pieces.vocab_size())
        if pieces.is_control(number) and number not in there
    ]
    content["added_tokens"].sort(key=lambda token: token["id"])
    if is_todays:
        content |= {"normalizer": None, "pre_tokenizer": _METASPACE}
    _dump(folder / "tokenizer.json", content)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        **({"add_prefix_space": None} if is_todays else {}),
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in content["added_tokens"]
        },
        "additional_special_tokens": [],
        **names,
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "legacy": not is_todays,
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": None,
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "tokenizer_class": "LlamaTokenizer",
        "use_default_system_prompt": False,
    }
    _dump(folder / "tokenizer_config.json", config)
    _dump(folder / "special_tokens_map.json", names)


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    data, out = map(Path, sys.argv[1:])
    (v1,) = data.glob("tokenizer.model.v1")
    (v3,) = data.glob("*.model.v3")
    _write(out / "v0.2-march", v1, V02_MARCH, is_todays=False)
    _write(out / "v0.2-september", v1, V02_SEPTEMBER, is_todays=True)
    _write(out / "v0.3", v3, V03, is_todays=True)
