"""The demo's rows: the committed ones are what the code makes, and the validation words are unseen."""

from __future__ import annotations

import json
import random

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.demo.task import (
    LONGEST,
    SHORTEST,
    TASKS,
    TRAIN_ROWS,
    VALIDATION_WORDS,
    chat_row,
    plain_line,
    random_word,
    sample_files,
)

SAMPLE = PROJECT_ROOT / "data" / "sample"


def _words(name: str) -> list[str]:
    rows = [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]
    return [row["messages"][1]["content"][::-1] for row in rows]


def test_the_committed_sample_is_what_the_code_makes() -> None:
    made = sample_files()
    assert {path.name for path in SAMPLE.iterdir()} == set(made)
    for name, content in made.items():
        assert (SAMPLE / name).read_bytes() == content.encode()


def test_another_seed_makes_other_training_rows_and_the_same_validation_rows() -> None:
    first, second = sample_files(1), sample_files(2)
    assert first["train.jsonl"] != second["train.jsonl"]
    assert first["val.jsonl"] == second["val.jsonl"]


def test_no_validation_word_is_trained_on() -> None:
    assert not set(_words("train.jsonl")) & set(_words("val.jsonl"))
    assert set(_words("val.jsonl")) == set(VALIDATION_WORDS)
    assert len(set(VALIDATION_WORDS)) == len(VALIDATION_WORDS) == 100


def test_no_word_is_trained_on_twice() -> None:
    words = _words("train.jsonl")
    assert len(set(words)) == len(words) == TRAIN_ROWS


def test_the_base_is_not_pre_trained_on_validation_words_either() -> None:
    source = random.Random(0)  # noqa: S311 - a test, no secret
    words = {plain_line(source).split(" ")[1].rstrip(":") for _ in range(20_000)}
    assert not words & set(VALIDATION_WORDS)


def test_validation_words_are_no_longer_than_trained_ones() -> None:
    assert {len(word) for word in VALIDATION_WORDS} <= set(range(SHORTEST, LONGEST + 1))


def test_random_words_pass_over_the_validation_words(monkeypatch: pytest.MonkeyPatch) -> None:
    source, letters = random.Random(0), iter(["fox", "owl", "abc"])  # noqa: S311 - a test, no secret
    monkeypatch.setattr(source, "choices", lambda *_args, **_kwargs: next(letters))
    assert random_word(source) == "abc"


@pytest.mark.parametrize(("task", "answer"), [("reverse", "rebma"), ("first", "a"), ("last", "r")])
def test_each_task_has_its_answer(task: str, answer: str) -> None:
    assert TASKS[task]("amber") == answer


def test_the_chat_form_asks_for_the_word_backwards() -> None:
    assert [turn["content"] for turn in chat_row("amber")["messages"]] == ["Write the word amber backwards.", "rebma"]
