"""Figures are what they say they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

import torch
from transformers import AutoModelForCausalLM

from encoded_rows import encoded_row
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import Conversation, Message
from kit.use.answers import EvalPrompt
from kit.use.scores import RowLosses, row_losses, sample, score_answers, wilson_interval, words

if TYPE_CHECKING:
    from pathlib import Path

    from kit.data.encoding import EncodedRow


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(tiny_base)).double()


@pytest.fixture(scope="module")
def rows(tiny_base: Path) -> list[EncodedRow]:
    chat = ChatTokenizer.load(str(tiny_base))
    pairs = [("a", "b"), ("a longer question", "and a longer answer"), ("naïve", "🦙"), ("q", "x" * 90)]
    return [
        encoded_row(Conversation((Message("user", ask), Message("assistant", tell, is_answer=True)), line), chat, 64)
        for line, (ask, tell) in enumerate(pairs, start=1)
    ]


def test_the_loss_is_the_models_own_on_each_row_alone(model: Any, rows: list[EncodedRow]) -> None:
    found = row_losses(model, rows, batch_size=3)
    for row, total, tokens in zip(rows, found.sums, found.tokens, strict=True):
        loss = model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss
        assert tokens == row.trainable_tokens
        assert total / tokens == pytest.approx(float(loss), rel=1e-6)


def test_the_batch_size_changes_nothing(model: Any, rows: list[EncodedRow]) -> None:
    counted: list[int] = []
    one, four = row_losses(model, rows, batch_size=1), row_losses(model, rows, batch_size=4, done=counted.append)
    assert one.sums == pytest.approx(four.sums, rel=1e-6)
    assert counted == [4]


def test_the_mean_is_over_tokens_and_not_over_rows() -> None:
    losses = RowLosses((3.0, 1.0), (1, 3))
    assert losses.mean == 1.0
    assert losses.perplexity == math.e


def test_a_perplexity_beyond_a_float_is_infinite() -> None:
    assert RowLosses((1e6,), (1,)).perplexity == math.inf


def test_short_answers_are_matched_and_not_rouged() -> None:
    scores = score_answers(["a", "b"], ["a", "c"])
    assert (scores.questions, scores.exact_match, scores.rouge_questions, scores.rouge) == (2, 0.5, 0, None)


def test_long_answers_have_rouge_and_only_they() -> None:
    wanted = "the cat sat on the mat"
    scores = score_answers(["the cat sat on a mat", "x"], [wanted, "no"])
    assert scores.rouge_questions == 1
    assert scores.rouge
    # 5 of 6 words each way; of 5 pairs each side, 3 are shared: "the cat", "cat sat", "sat on".
    assert scores.rouge["rouge1"] == pytest.approx(5 / 6)
    assert scores.rouge["rouge2"] == pytest.approx(3 / 5)
    assert scores.rouge["rougeL"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    "text",
    ["Быстрая лиса прыгает через ленивую собаку", "敏捷的棕色狐狸跳过了懒狗", "الثعلب البني السريع يقفز فوق الكلب"],
)
def test_rouge_reads_every_alphabet(text: str) -> None:
    scores = score_answers([text, "unlike"], [text, text])
    assert scores.rouge
    assert scores.rouge["rougeL"] == pytest.approx(0.5)


def test_words_are_letters_and_digits_in_any_case() -> None:
    assert words("Don't STOP_now: ﬁ2 — 猫犬 a1") == ["don", "t", "stop", "now", "fi2", "猫", "犬", "a1"]


def test_no_answers_have_no_scores() -> None:
    with pytest.raises(ValueError, match="no answers"):
        score_answers([], [])


@pytest.mark.parametrize(
    # Newcombe (1998), table I: 81 of 263; and the two ends, where the usual interval has no width.
    ("hits", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_the_interval_is_wilsons(hits: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_a_sample_is_the_same_for_the_same_seed_and_in_the_files_order() -> None:
    questions = [EvalPrompt(Conversation((Message("user", "q"),), line), "a") for line in range(50)]
    drawn = sample(questions, 10, seed=1)
    lines = [question.conversation.line for question in drawn]
    assert drawn == sample(questions, 10, seed=1)
    assert drawn != sample(questions, 10, seed=2)
    assert lines == sorted(set(lines))
    assert sample(questions, 99, seed=1) == questions
    assert sample(questions, 0, seed=1) == []
