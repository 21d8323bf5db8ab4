"""Gather a report's contents from a run directory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.cli.redaction import redact_all
from kit.config import schema
from kit.files.numbers import finite, listed, mapping
from kit.plan.overheads import Term
from kit.report.curves import Curves, curves_of
from kit.report.lengths import Lengths, lengths_of
from kit.report.parity import parity_line
from kit.report.samples import Answers, read_answers
from kit.report.verdict import Verdict, judge_run
from kit.run_directory.history import Run, read_run
from kit.runs.comparison import written
from kit.runs.summary import Summary, summarise


@dataclass(frozen=True)
class Prediction:
    """Predicted and measured memory and time; None where unknown.

    Attributes:
        seconds: Predicted, worst case.
        measured_seconds: From the first step to the last, evaluations included.
    """

    peak_memory_bytes: float | None = None
    seconds: float | None = None
    parts: tuple[Term, ...] = ()
    measured_memory_bytes: float | None = None
    measured_seconds: float | None = None

    @property
    def is_there(self) -> bool:
        """Tell whether anything was predicted."""
        return self.peak_memory_bytes is not None or self.seconds is not None


@dataclass(frozen=True)
class ConfigRow:
    """One value of the configuration; ``default`` is the schema's own, None for a required key."""

    key: str
    value: str
    default: str | None
    origin: str

    @property
    def is_changed(self) -> bool:
        """Tell whether the value is another than the schema's default."""
        return self.default is not None and self.value != self.default


@dataclass(frozen=True)
class Contents:
    """One report's contents."""

    run: Run
    summary: Summary
    verdict: Verdict
    curves: Curves
    lengths: Lengths
    answers: Answers
    prediction: Prediction
    config: tuple[tuple[str, tuple[ConfigRow, ...]], ...]
    parity: str
    written_at: str


def gather(folder: Path) -> Contents:
    """Gather a report's contents.

    Raises:
        RunError: The folder holds no run that can be read.
    """
    run = read_run(folder)
    # A page is sent to others; a receipt may be of a time, or of a hand, that did not redact.
    run = replace(run, receipt=redact_all(run.receipt))
    summary, lengths = summarise(run), lengths_of(run)
    answers = read_answers(folder, summary.started)
    return Contents(
        run=run,
        summary=summary,
        verdict=judge_run(run, summary, answers, lengths),
        curves=curves_of(run.steps, run.evaluations),
        lengths=lengths,
        answers=answers,
        prediction=_prediction(run, summary),
        config=config_rows(mapping(run.receipt.get("config")), mapping(run.receipt.get("origins"))),
        parity=parity_line(run),
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _prediction(run: Run, summary: Summary) -> Prediction:
    """Read the plan of ``kit.plan`` that the receipt holds, and set what came of it beside it."""
    predicted = mapping(run.receipt.get("predicted"))
    terms = mapping(predicted.get("terms"))
    parts = [Term(str(name), int(size)) for name, value in terms.items() if (size := finite(value)) is not None]
    last = run.steps[-1] if run.steps else {}
    memory = summary.peak_memory_bytes
    # A plan gives the time as (at best, at worst): one plans for the worst.
    at_worst = [finite(value) for value in listed(predicted.get("seconds"))][-1:]
    return Prediction(
        peak_memory_bytes=finite(predicted.get("allocated_bytes")),
        seconds=at_worst[0] if at_worst else None,
        parts=tuple(parts),
        measured_memory_bytes=None if memory is None else float(memory),
        measured_seconds=finite(last.get("seconds")),
    )


def config_rows(config: dict[str, Any], origins: dict[str, Any]) -> tuple[tuple[str, tuple[ConfigRow, ...]], ...]:
    """Return the configuration by section, each value with its default and its origin."""
    defaults = schema.defaults()
    sections = []
    for section, body in config.items():
        rows = [
            ConfigRow(
                key=str(key),
                value=written(value),
                default=written(defaults[section][key]) if key in defaults.get(section, {}) else None,
                origin=str(origins.get(f"{section}.{key}", "not recorded")),
            )
            for key, value in mapping(body).items()
        ]
        sections.append((str(section), tuple(rows)))
    return tuple(sections)
