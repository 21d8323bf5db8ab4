"""Base against adapter: figures as data, table and verdict, and beside the run's own last one. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kit.cli.console import say
from kit.cli.screen import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from kit.use.answers import EvalPrompt
    from kit.use.loading import LoadChoice
    from kit.use.scores import AnswerScores, RowLosses

SCHEMA_VERSION = 1
_WIDTH_SHOWN = 400  # characters of one cell


@dataclass(frozen=True)
class Side:
    """What was measured of the base, or of the adapter.

    Attributes:
        scores: None where nothing was asked.
        tasks: The harness's measures by task.
    """

    losses: RowLosses
    answers: tuple[str, ...] = ()
    scores: AnswerScores | None = None
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_mapping(self) -> dict[str, Any]:
        """Return the figures for JSON; a perplexity beyond a float is None."""
        perplexity = self.losses.perplexity
        facts: dict[str, Any] = {
            "loss": self.losses.mean,
            "perplexity": perplexity if math.isfinite(perplexity) else None,
        }
        if self.scores:
            scores = asdict(self.scores)
            interval = [scores.pop("exact_match_low"), scores.pop("exact_match_high")]
            facts |= {
                "exact_match": scores.pop("exact_match"),
                "exact_match_95": interval,
                "rouge": scores.pop("rouge"),
            }
        if self.tasks:
            facts["tasks"] = self.tasks
        return facts


@dataclass(frozen=True)
class Evaluation:
    """Base against adapter on one file; ``facts`` go into the JSON as they are."""

    facts: dict[str, Any]
    questions: tuple[EvalPrompt, ...]
    base: Side
    adapter: Side

    @property
    def better_rows(self) -> int:
        """Rows whose loss the adapter lowers."""
        pairs = zip(self.base.losses.sums, self.adapter.losses.sums, strict=True)
        return sum(with_adapter < without for without, with_adapter in pairs)

    def as_mapping(self) -> dict[str, Any]:
        """Return ``evaluation.json``."""
        samples = [
            {
                "line": question.conversation.line,
                "messages": [turn.as_turn() for turn in question.conversation.messages],
                "expected": question.expected,
                "base": without,
                "adapter": with_adapter,
            }
            for question, without, with_adapter in zip(
                self.questions, self.base.answers, self.adapter.answers, strict=True
            )
        ]
        scores = self.adapter.scores
        return {
            "schema_version": SCHEMA_VERSION,
            **self.facts,
            "rows": len(self.adapter.losses.sums),
            "answer_tokens": sum(self.adapter.losses.tokens),
            "rows_with_lower_loss": self.better_rows,
            "questions": scores.questions if scores else 0,
            "rouge_questions": scores.rouge_questions if scores else 0,
            "base": self.base.as_mapping(),
            "adapter": self.adapter.as_mapping(),
            "samples": samples,
        }

    @property
    def verdict(self) -> tuple[str, str]:
        """Return a sentence on which is better, and its colour."""
        before, after = self.base.losses.mean, self.adapter.losses.mean
        rows = f"on {self.better_rows:,} of {len(self.adapter.losses.sums):,} rows"
        if after < before:
            return f"the adapter is better: loss {before:.4f} -> {after:.4f}, lower {rows}", "green"
        return f"the adapter is not better: loss {before:.4f} -> {after:.4f}, lower {rows}", "yellow"


def show(evaluation: Evaluation, stream: TextIO, *, samples: int) -> None:
    """Write the figures and the first samples side by side."""
    console = Console(file=stream, highlight=False, soft_wrap=False)
    console.print(_figures(evaluation))
    if samples and evaluation.questions:
        console.print(_samples(evaluation, samples))
        left = len(evaluation.questions) - samples
        if left > 0:
            console.print(f"{left:,} more are in the file below", style="dim")


def _figures(evaluation: Evaluation) -> Table:
    base, adapter = evaluation.base, evaluation.adapter
    table = Table("", box=SIMPLE, pad_edge=False)
    for name in ("base", "adapter"):
        table.add_column(name, justify="right")
    table.add_column("measured on")
    tokens = f"{sum(adapter.losses.tokens):,} tokens, {len(adapter.losses.sums):,} rows"
    table.add_row("loss, nats per token", *(f"{side.losses.mean:.4f}" for side in (base, adapter)), tokens)
    table.add_row("perplexity", *(_perplexity(side.losses.perplexity) for side in (base, adapter)), "the same")
    if base.scores and adapter.scores:
        asked = f"{adapter.scores.questions:,} questions, greedy"
        table.add_row("exact match (95 %)", *(_share(side.scores) for side in (base, adapter) if side.scores), asked)
        long = f"{adapter.scores.rouge_questions:,} answers of 6+ words"
        if base.scores.rouge and adapter.scores.rouge:
            for key, name in (("rouge1", "ROUGE-1"), ("rouge2", "ROUGE-2"), ("rougeL", "ROUGE-L")):
                table.add_row(name, f"{base.scores.rouge[key]:.3f}", f"{adapter.scores.rouge[key]:.3f}", long)
        else:
            table.add_row("ROUGE", "-", "-", "no 6-word answer")
    for task, measures in adapter.tasks.items():
        for measure, value in measures.items():
            if "_stderr" in measure:
                continue
            before = base.tasks.get(task, {}).get(measure, math.nan)
            table.add_row(
                Text(one_line(f"{task}: {measure}")), f"{before:.4f}", f"{value:.4f}", "lm-evaluation-harness"
            )
    return table


def _perplexity(value: float) -> str:
    return f"{value:,.2f}" if value < 1e6 else f"{value:.1e}"  # noqa: PLR2004 - beyond it digits say nothing


def _share(scores: AnswerScores) -> str:
    return f"{scores.exact_match:.0%} ({scores.exact_match_low:.0%}-{scores.exact_match_high:.0%})"


def _samples(evaluation: Evaluation, count: int) -> Table:
    table = Table("question", "expected", "base", "adapter", box=SIMPLE, pad_edge=False)
    rows: Sequence[tuple[EvalPrompt, str, str]] = list(
        zip(evaluation.questions, evaluation.base.answers, evaluation.adapter.answers, strict=True)
    )[:count]
    for question, without, with_adapter in rows:
        right = with_adapter.strip() == question.expected.strip()
        table.add_row(
            _cell(question.prompt),
            _cell(question.expected),
            _cell(without),
            _cell(with_adapter, "green" if right else ""),
        )
    return table


def _cell(text: str, style: str = "") -> Text:
    shown = visible(text.strip())
    shown = shown if len(shown) <= _WIDTH_SHOWN else f"{shown[:_WIDTH_SHOWN]} …"
    return Text(shown, style=style) if shown else Text("(nothing)", style="dim")


def compute_differences(choice: LoadChoice) -> list[str]:
    """Return a sentence for each difference in compute from the run: it rounds differently."""
    from kit.modeling.compute import describe_compute

    receipt = choice.run.receipt
    then, now = receipt.get("compute"), describe_compute(choice.platform)
    said = []
    if receipt.get("stack", choice.stack.name) != choice.stack.name:
        said.append(f"trained on the {receipt['stack']} stack, evaluated on the {choice.stack.name} stack")
    if isinstance(then, dict):
        said += [f"{key} is {now[key]} here, was {then[key]}" for key in now if then.get(key, now[key]) != now[key]]
    return said


def compare_with_training(evaluation: Evaluation) -> None:
    """Report whether the loss equals the run's last, within rounding (``loss_rounding``)."""
    facts, measured = evaluation.facts, evaluation.adapter.losses.mean
    recorded, rounding = facts["run_eval_loss"], facts["loss_rounding"]
    if recorded is None:
        return
    differs = "; ".join([*facts["remarks"], *facts["elsewhere"]])
    if abs(measured - recorded) <= rounding:
        same = f"the same within rounding; {differs}" if differs else "the same"
        say(f"the run's own last evaluation was {recorded:.4f}: {same}", "dim")
        return
    why = differs or "the base, the adapter or a package changed since the run (make verify checks the files)"
    digits = max(4, 1 - math.floor(math.log10(abs(measured - recorded))))
    say(
        f"note: the run's own last evaluation was {recorded:.{digits}f}, this one is {measured:.{digits}f}, and "
        f"rounding explains at most {rounding:.1g}: {why}",
        "yellow",
    )
