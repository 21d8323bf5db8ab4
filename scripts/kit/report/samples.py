"""Answers of base and adapter, from ``evaluation.json`` or the demo's ``demo.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kit.files.json_files import read_object
from kit.files.numbers import finite, listed, mapping
from kit.run_directory.names import DEMO, evaluation_name

MOST_SHOWN = 8
LONGEST_SHOWN = 1200  # characters of a text on the page
_FILES = (evaluation_name(), DEMO)


@dataclass(frozen=True)
class Sample:
    """One question, and what the base and the adapter say to it; None where there is no such answer."""

    prompt: str
    expected: str | None
    base: str | None
    adapter: str | None

    def is_right(self, answer: str | None) -> bool | None:
        """Tell whether an answer is the expected one, letter for letter; None where that cannot be said."""
        if answer is None or self.expected is None:
            return None
        return answer.strip() == self.expected.strip()


@dataclass(frozen=True)
class Answers:
    """What the run's evaluation, or the demo, left behind.

    Attributes:
        source: The file's name; empty where there is none.
        samples: The first of its samples.
        count: How many samples it holds, or how many questions were asked.
        exact_match_base: Of the base; None where not measured.
        exact_match_adapter: And after.
        loss_base: Of the base, on the rows evaluated on; None where not measured.
        loss_adapter: Of base and adapter.
    """

    source: str = ""
    samples: tuple[Sample, ...] = ()
    count: int = 0
    exact_match_base: float | None = None
    exact_match_adapter: float | None = None
    loss_base: float | None = None
    loss_adapter: float | None = None


def read_answers(folder: Path, started: str | None = None) -> Answers:
    """Read a run's answers; an evaluation says more than the demo, so it goes first.

    What was written before ``started``, the run's start in ISO 8601, is an earlier run's of the same name.
    """
    for name in _FILES:
        try:
            if (folder / name).stat().st_mtime < _seconds(started):
                continue
            return _answers(name, read_object(folder / name))
        except (OSError, ValueError):
            continue
    return Answers()


def _seconds(moment: str | None) -> float:
    try:
        return datetime.fromisoformat(moment or "").timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _answers(name: str, found: dict[str, Any]) -> Answers:
    samples = [_sample(item) for item in listed(found.get("samples")) if isinstance(item, dict)]
    questions = finite(found.get("questions"))
    return Answers(
        source=name,
        samples=tuple(samples[:MOST_SHOWN]),
        count=int(questions) if questions is not None else len(samples),
        exact_match_base=_score(found, "base", "exact_match_before"),
        exact_match_adapter=_score(found, "adapter", "exact_match_after"),
        loss_base=finite(mapping(found.get("base")).get("loss")),
        loss_adapter=finite(mapping(found.get("adapter")).get("loss")),
    )


def _score(found: dict[str, Any], side: str, key: str) -> float | None:
    """Look for the score as the demo writes it, or as the evaluation does: ``{"base": {"exact_match": …}, …}``."""
    score = finite(found.get(key))
    return finite(mapping(found.get(side)).get("exact_match")) if score is None else score


def _sample(item: dict[str, Any]) -> Sample:
    prompt = item.get("prompt")
    if prompt is None:
        # An evaluation keeps the whole conversation; what was asked is its last turn.
        prompt = mapping(next(reversed(listed(item.get("messages"))), None)).get("content")
    return Sample(
        _text(prompt) or "",
        _text(item.get("expected")),
        _text(item.get("base")),
        _text(item.get("adapter")),
    )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # Half a character, as a broken file may hold it, cannot be written as UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} …"
