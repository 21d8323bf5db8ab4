"""Score a model on a data file: its loss on the answers, and how its own answers compare. Imports torch.

The loss is what the trainer's evaluation measures: the mean over every answer token of the file, so the adapter's is
the ``eval_loss`` the run ended with.
"""

from __future__ import annotations

import math
import random
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics.functional.text.rouge import rouge_score

from kit.data.encoding import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kit.data.encoding import EncodedRow
    from kit.use.answers import EvalPrompt

# Overlap of word sequences says little about a name or a number: exact match says it better.
ROUGE_FROM_WORDS = 6
ROUGE_KEYS = ("rouge1", "rouge2", "rougeL")
_Z_95 = 1.959964  # normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class RowLosses:
    """The loss of each row of a file.

    Attributes:
        sums: Summed over the row's answer tokens, in nats.
        tokens: Answer tokens of the row.
        logit_spread: Standard deviation of an answer token's logits, root mean square over all of them.
    """

    sums: tuple[float, ...]
    tokens: tuple[int, ...]
    logit_spread: float = 0.0

    @property
    def mean(self) -> float:
        """Mean over all answer tokens, however they are spread over rows."""
        return sum(self.sums) / sum(self.tokens)

    @property
    def perplexity(self) -> float:
        """``exp(mean)``; infinite where that is beyond a float."""
        try:
            return math.exp(self.mean)
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class AnswerScores:
    """How greedy answers compare with the expected ones.

    Attributes:
        exact_match: Share that is letter for letter what was expected.
        exact_match_low: Lower end of its 95 % interval (Wilson).
        exact_match_high: Upper end.
        rouge_questions: How many expected answers are long enough for ROUGE.
        rouge: Mean F-measure by ``rouge1``, ``rouge2``, ``rougeL``; None without such answers.
    """

    questions: int
    exact_match: float
    exact_match_low: float
    exact_match_high: float
    rouge_questions: int
    rouge: dict[str, float] | None


def row_losses(
    model: Any, rows: Sequence[EncodedRow], *, batch_size: int, done: Callable[[int], object] = lambda _count: None
) -> RowLosses:
    """Measure each row's loss on its answer tokens; the batch size changes nothing but rounding.

    ``done`` gets each batch's number of rows.
    """
    model.eval()
    sums, tokens = [0.0] * len(rows), [0] * len(rows)
    squares = 0.0
    lengths = [len(row.input_ids) for row in rows]
    by_length = sorted(range(len(rows)), key=lengths.__getitem__)
    for begin in range(0, len(rows), batch_size):
        batch = by_length[begin : begin + batch_size]
        longest = lengths[batch[-1]]
        ids, labels, mask = (torch.full((len(batch), longest), fill) for fill in (0, IGNORE_INDEX, 0))
        for line, index in enumerate(batch):
            row, length = rows[index], lengths[index]
            ids[line, :length] = torch.tensor(row.input_ids)
            labels[line, :length] = torch.tensor(row.labels)
            mask[line, :length] = 1
        with torch.no_grad():
            logits = model(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
            ).logits[:, :-1]
        targets = labels[:, 1:].to(logits.device)
        is_answer = targets != IGNORE_INDEX
        answers = logits[is_answer].float()
        losses = torch.nn.functional.cross_entropy(answers, targets[is_answer], reduction="none")
        squares += float(answers.var(dim=-1, correction=0).sum())
        counts = is_answer.sum(dim=1).tolist()
        for index, part in zip(batch, losses.cpu().double().split(counts), strict=True):
            sums[index], tokens[index] = float(part.sum()), len(part)
        done(len(batch))
    return RowLosses(tuple(sums), tuple(tokens), math.sqrt(squares / max(1, sum(tokens))))


def sample(questions: Sequence[EvalPrompt], count: int, seed: int) -> list[EvalPrompt]:
    """Draw up to ``count`` questions, the same for the same seed, in the file's order."""
    if len(questions) <= count:
        return list(questions)
    chosen = random.Random(seed).sample(range(len(questions)), count)  # noqa: S311 - a sample, not a secret
    return [questions[index] for index in sorted(chosen)]


def score_answers(answers: Sequence[str], expected: Sequence[str]) -> AnswerScores:
    """Compare answers with what was expected.

    Raises:
        ValueError: There is no answer to compare.
    """
    if not expected:
        raise ValueError("there are no answers to score")
    pairs = [(given.strip(), wanted.strip()) for given, wanted in zip(answers, expected, strict=True)]
    hits = sum(given == wanted for given, wanted in pairs)
    low, high = wilson_interval(hits, len(pairs))
    long = [(given, wanted) for given, wanted in pairs if len(words(wanted)) >= ROUGE_FROM_WORDS]
    return AnswerScores(len(pairs), hits / len(pairs), low, high, len(long), _rouge(long) if long else None)


def _rouge(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    given, wanted = map(list, zip(*pairs, strict=True))
    # Its own normaliser knows a to z and 0 to 9 and drops every other letter there is.
    scores = rouge_score(given, wanted, normalizer=str, tokenizer=words, rouge_keys=ROUGE_KEYS)
    return {key: float(scores[f"{key}_fmeasure"]) for key in ROUGE_KEYS}


def words(text: str) -> list[str]:
    """Split into lower-case words of letters and digits; scripts without blanks between words go by the character."""
    composed = unicodedata.normalize("NFKC", text).lower()
    return re.findall(r"[぀-ヿ㐀-䶿一-鿿豈-﫿]|[^\W_぀-ヿ㐀-䶿一-鿿豈-﫿]+", composed)


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share.

    Source: Wilson (1927), which unlike the usual one stays within 0 and 1 and has a width at both ends.
    """
    share, z2 = hits / trials, _Z_95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)
