"""Questions out of the data, answers out of a model, and the share that is right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch
from transformers import AutoModelForCausalLM

from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Conversation, Message
from kit.use.answers import EvalPrompt, answer, exact_match, read_questions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chat_folders import ChatFolder


def _question(prompt: str, expected: str = "x") -> EvalPrompt:
    return EvalPrompt(Conversation((Message("user", prompt),), 1), expected)


def test_the_last_answer_is_what_is_expected(tmp_path: Path, byte_chat: ChatTokenizer) -> None:
    rows: list[Any] = [
        {"prompt": "ask", "completion": "tell"},
        {"text": "no row"},
        {"messages": [{"role": role, "content": role[0]} for role in ("user", "assistant", "user", "assistant")]},
        {"messages": [{"role": role, "content": role[0]} for role in ("user", "assistant", "user")]},
        {"messages": [{"role": role, "content": role[0]} for role in ("user", "assistant") * 2], "train": [0, 1, 0, 0]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    first, second = read_questions(path, byte_chat)
    assert (first.prompt, first.expected, first.conversation.line) == ("ask", "tell", 1)
    assert (second.prompt, second.expected, len(second.conversation.messages)) == ("u", "a", 3)


class _Parrot(torch.nn.Module):  # type: ignore[misc]
    """Answers each prompt with its last letters and an end, and keeps what it was asked."""

    device = torch.device("cpu")

    def __init__(self, eos: int) -> None:
        super().__init__()
        self.eos = eos
        self.asked: list[dict[str, Any]] = []

    def generate(self, **asked: Any) -> Any:
        self.asked.append(asked)
        ids = asked["input_ids"]
        end = torch.full((len(ids), 1), self.eos)
        return torch.cat([ids, ids[:, -10:-8], end, end], dim=1)


def test_answers_come_in_the_order_of_the_questions(byte_chat: ChatTokenizer) -> None:
    model = _Parrot(byte_chat.eos_token_id)
    questions = [_question(f"{'long ' * number} {number}{number}") for number in range(7)]
    given = answer(model, byte_chat, questions, max_new_tokens=5, batch_size=3)
    assert given == ["00", "11", "22", "33", "44", "55", "66"]
    assert [len(asked["input_ids"]) for asked in model.asked] == [3, 3, 1]
    assert not model.training


def test_prompts_are_padded_on_the_left_and_the_padding_is_masked(byte_chat: ChatTokenizer) -> None:
    model = _Parrot(byte_chat.eos_token_id)
    answer(model, byte_chat, [_question("a"), _question("a longer one")], max_new_tokens=5)
    (asked,) = model.asked
    for ids, mask, prompt in zip(asked["input_ids"], asked["attention_mask"], ("a", "a longer one"), strict=True):
        assert byte_chat.tokenizer.decode(ids[mask.bool()].tolist(), skip_special_tokens=False) == (
            f"<s>[INST] {prompt} [/INST]"
        )
        assert mask.tolist() == sorted(mask.tolist())
    assert (asked["max_new_tokens"], asked["do_sample"]) == (5, False)


def test_an_answer_ends_at_the_first_token_that_ends_one(chat_folder: ChatFolder) -> None:
    folder = chat_folder()
    (folder / "generation_config.json").write_text('{"eos_token_id": [40]}', encoding="utf-8")
    chat = ChatTokenizer.load(str(folder))
    model = _Parrot(40)  # no special token: it would stand in the text
    assert answer(model, chat, [_question("12")], max_new_tokens=5) == ["12"]
    assert (model.asked[0]["eos_token_id"], model.asked[0]["pad_token_id"]) == ([2, 40], 2)


def test_no_questions_are_no_work(byte_chat: ChatTokenizer) -> None:
    assert answer(_Parrot(2), byte_chat, [], max_new_tokens=5) == []


def test_a_real_model_answers_a_batch_as_it_answers_each_alone(tiny_base: Path) -> None:
    chat = ChatTokenizer.load(str(tiny_base))
    model = AutoModelForCausalLM.from_pretrained(str(tiny_base)).double()
    questions = [_question(text) for text in ("a", "naïve 🦙", "a much longer question than the others", "é")]
    together = answer(model, chat, questions, max_new_tokens=8)
    alone = [answer(model, chat, [question], max_new_tokens=8)[0] for question in questions]
    assert together == alone


@pytest.mark.parametrize(
    ("answers", "expected", "share"),
    [
        (["a", "b"], ["a", "b"], 1.0),
        (["a", "B"], ["a", "b"], 0.5),
        (["", "a b"], ["a", "ab"], 0.0),
        (["a"], [" a\n"], 1.0),
    ],
)
def test_a_match_is_letter_for_letter(answers: Sequence[str], expected: Sequence[str], share: float) -> None:
    assert exact_match(answers, [_question("q", text) for text in expected]) == share


def test_no_questions_have_no_share() -> None:
    with pytest.raises(ValueError, match="no questions"):
        exact_match([], [])


def test_an_answer_that_is_missing_is_a_bug() -> None:
    with pytest.raises(ValueError, match="zip"):
        exact_match(["a"], [_question("q"), _question("r")])
