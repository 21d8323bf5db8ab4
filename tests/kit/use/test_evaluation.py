"""An evaluation reads the same as data, as a table and as a sentence."""

from __future__ import annotations

import io
import json

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

from kit.data.conversations import Conversation, Message
from kit.use.answers import EvalPrompt
from kit.use.evaluation import Evaluation, Side, show
from kit.use.scores import RowLosses, score_answers

EXPECTED = ["yes", "the quick brown fox jumps over the dog"]
QUESTIONS = tuple(
    EvalPrompt(Conversation((Message("user", f"[b]q{line}[/b]"),), line), text) for line, text in enumerate(EXPECTED)
)


def _side(answers: list[str], sums: tuple[float, ...]) -> Side:
    return Side(RowLosses(sums, (2, 8)), tuple(answers), score_answers(answers, EXPECTED))


def _evaluation() -> Evaluation:
    base, adapter = _side(["", "\x1b[2Ja fox"], (4.0, 36.0)), _side(EXPECTED, (1.0, 1.0))
    return Evaluation({"run": "demo"}, QUESTIONS, base, adapter)


def test_the_data_holds_both_sides_and_the_samples_beside_each_other() -> None:
    data = json.loads(json.dumps(_evaluation().as_mapping()))
    assert (data["schema_version"], data["run"], data["rows"], data["answer_tokens"]) == (1, "demo", 2, 10)
    assert (data["base"]["loss"], data["adapter"]["loss"]) == (4.0, 0.2)
    assert (data["base"]["exact_match"], data["adapter"]["exact_match"]) == (0.0, 1.0)
    assert (data["questions"], data["rouge_questions"]) == (2, 1)
    assert data["adapter"]["rouge"]["rougeL"] == pytest.approx(1.0)
    assert data["samples"][0] == {
        "line": 0, "messages": [{"role": "user", "content": "[b]q0[/b]"}], "expected": "yes", "base": "",
        "adapter": "yes",
    }  # fmt: skip


def test_a_perplexity_beyond_a_float_is_null_in_json() -> None:
    side = Side(RowLosses((1e9,), (1,)))
    assert side.as_mapping() == {"loss": 1e9, "perplexity": None}


def test_the_table_shows_both_sides_and_takes_no_text_for_markup_or_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    stream = io.StringIO()
    show(_evaluation(), stream, samples=2)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "[b]q0[/b]" in text
    assert r"\u001b[2Ja fox" in text
    assert "(nothing)" in text
    assert "ROUGE-L" in text
    assert "1 answers of 6+ words" in text


def test_without_long_answers_the_table_says_that_rouge_was_not_measured() -> None:
    side = Side(RowLosses((1.0,), (1,)), ("a",), score_answers(["a"], ["a"]))
    stream = io.StringIO()
    show(Evaluation({}, QUESTIONS[:1], side, side), stream, samples=0)
    assert "no 6-word answer" in stream.getvalue()


def test_the_verdict_names_who_is_better_and_on_how_many_rows() -> None:
    better = _evaluation()
    assert better.verdict == ("the adapter is better: loss 4.0000 -> 0.2000, lower on 2 of 2 rows", "green")
    worse = Evaluation({}, QUESTIONS, better.adapter, better.base)
    assert worse.verdict[0].startswith("the adapter is not better: loss 0.2000 -> 4.0000, lower on 0 of 2 rows")
