"""Encode the conversations with mistral-common. Run as: PYTHON theirs.py v1|v3 OUT.json, in its own environment.

For each: ``ids`` as it trains on them, ``spans`` of the answers in them, the ``prompt`` of the last answer, the text of
the answers (``said``); or ``refused`` with its words.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from conversations import Turns, conversations
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

_MESSAGES = {"user": UserMessage, "assistant": AssistantMessage, "system": SystemMessage}


def _asked(turns: Turns) -> Any:
    return ChatCompletionRequest(messages=[_MESSAGES[role](content=content) for role, content in turns])


def _encode(turns: Turns, asks: Any, trains: Any) -> dict[str, Any]:
    ids = trains.encode_chat_completion(_asked(turns)).tokens
    encoder, spans, begin = trains.instruct_tokenizer, [], 0
    for role, content in turns:
        if role == "assistant":
            answer = encoder.encode_assistant_message(AssistantMessage(content=content), False)
            begin = next(at for at in range(begin, len(ids)) if ids[at : at + len(answer)] == answer)
            spans.append((begin, begin := begin + len(answer)))
    prompt = asks.encode_chat_completion(_asked(turns[:-1] if turns[-1][0] == "assistant" else turns)).tokens
    said = [encoder.tokenizer.decode(ids[begin:end]) for begin, end in spans]
    return {"ids": ids, "spans": spans, "prompt": prompt, "said": said}


def main() -> None:
    """Encode them all."""
    version, out = sys.argv[1:]
    asks = getattr(MistralTokenizer, version)()
    file = asks.instruct_tokenizer.tokenizer.file_path
    trains = MistralTokenizer.from_file(str(file), mode=ValidationMode.finetuning)
    found: dict[str, Any] = {}
    for name, turns in conversations().items():
        try:
            found[name] = _encode(turns, asks, trains)
        except Exception as exc:  # noqa: BLE001 - a refusal, in whatever way
            found[name] = {"refused": f"{type(exc).__name__}: {exc}"[:200]}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
