"""Encode the conversations with the kit. Run as: PYTHON ours.py FOLDER OUT.json, with either stack's Python.

For each: ``ids`` and ``labels`` of its row, the prompts that ``evaluate`` and ``chat`` send for its last answer, the
text of its answers (``said``); or ``refused`` with the finding's words.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import torch
from conversations import Turns, conversations

from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.dataset import load_file
from kit.use.answers import answer, read_questions
from kit.use.conversation import Conversation


class _Listener:
    """A model that hears what evaluation asks, and answers nothing."""

    device, training = torch.device("cpu"), False

    def __init__(self) -> None:
        self.heard: list[int] = []

    def eval(self) -> _Listener:
        return self

    def train(self, _mode: bool = True) -> _Listener:
        return self

    def generate(self, *, input_ids: Any, **_asked: object) -> Any:
        self.heard = input_ids[0].tolist()
        return torch.cat([input_ids, torch.tensor([[2]])], dim=1)


def _encode(turns: Turns, chat: ChatTokenizer, path: Path) -> dict[str, Any]:
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    file = load_file(path, chat, 100_000)
    if not file.rows:
        return {"refused": "; ".join(finding.message for finding in file.findings if finding.severity == "error")}
    ids, labels = file.rows[0].input_ids, file.rows[0].labels
    found: dict[str, Any] = {"ids": ids, "labels": labels, "said": _said(chat, labels)}
    system = turns[0][1] if turns[0][0] == "system" else ""
    rest = [content for role, content in turns if role != "system"]
    for question in read_questions(path, chat):
        model = _Listener()
        answer(model, chat, [question], max_new_tokens=1)
        found["evaluate"] = model.heard
        talk = Conversation(chat, 100_000, system)
        for asked, told in zip(rest[:-2:2], rest[1:-2:2], strict=True):
            talk.add(asked, told)
        found["chat"] = talk.prepare(rest[-2], 16)[0]
    return found


def _said(chat: ChatTokenizer, labels: list[int]) -> list[str]:
    """Decode each run of labels: an answer."""
    answers: list[list[int]] = [[]]
    for label in labels:
        if label >= 0:
            answers[-1].append(label)
        elif answers[-1]:
            answers.append([])
    return [chat.decode(answer) for answer in answers if answer]


def main() -> None:
    """Encode them all."""
    folder, out = sys.argv[1:]
    chat = ChatTokenizer.load(folder)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "row.jsonl"
        found = {name: _encode(turns, chat, path) for name, turns in conversations().items()}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
