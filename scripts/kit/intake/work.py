"""What is done with each row by itself, on all cores: parse, shape, measure, hash, find secrets."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from kit.audit.length_cache import TokenCounter
from kit.audit.secrets import find_secrets
from kit.data.conversations import Conversation, RowProblem, checked_object, parse_row
from kit.data.row_values import RowError, kind_of, shown
from kit.data.shapes import PLAIN, NormalizedRow, Reading, shape_row
from kit.intake.near import signature_of
from kit.intake.turns import loosely, one_answer_each, written

if TYPE_CHECKING:
    from pathlib import Path

    from kit.audit.length_cache import Length
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.intake.chunks import Chunk

DIGEST_BYTES = 16


@dataclass(frozen=True)
class RowPipeline:
    """What is done with every row.

    Attributes:
        tokenizer: The base model's; None does not count tokens.
        group: Column whose equal values stay on one side of the split.
        label: Column whose values keep their shares on both sides.
        near: Compute signatures for near duplicates.
        cache: Of token lengths; None for none.
    """

    reading: Reading = PLAIN
    tokenizer: ChatTokenizer | None = None
    max_seq_length: int = 0
    group: str | None = None
    label: str | None = None
    near: bool = False
    secrets: bool = True
    drop_long: bool = False
    split_turns: bool = False
    cache: Path | None = None


class Row(NamedTuple):
    """A row that can be trained on.

    Attributes:
        text: JSON without a line break.
        exact: Hash of ``text``.
        loose: Hash of its turns ignoring case, whitespace and Unicode forms.
        group: Hash of its group, or of the conversation it was split from; empty for none.
        label: Empty for none.
        length: None if tokens were not counted.
        signature: MinHash; empty unless near duplicates are dropped.
    """

    line: int
    text: bytes
    exact: bytes
    loose: bytes
    group: bytes
    label: str
    length: Length | None
    signature: bytes


@dataclass
class Batch:
    """The result of one chunk.

    Attributes:
        rows: Those that can be trained on, in order.
        secrets: (line, kind, masked value) of each likely secret.
        unused: Rows by ignored column.
        trimmed: Rows that lost answers before their first question.
        added: Rows that ``split_turns`` added.
    """

    source: int
    rows: list[Row] = field(default_factory=list)
    problems: list[RowProblem] = field(default_factory=list)
    secrets: list[tuple[int, str, str]] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    trimmed: int = 0
    added: int = 0


@dataclass
class _Whole:
    """A row as it was read, and how many of its turns were kept so far (with ``split_turns``)."""

    shaped: NormalizedRow
    columns: dict[str, Any]
    kept: int = 0


class Worker:
    """Does the job, chunk by chunk, in this process or a worker."""

    def __init__(self, job: RowPipeline) -> None:
        """Keep the job; the cache is opened with the first chunk, in the worker process."""
        self.job = job
        self._ruler: TokenCounter | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the job without the open cache."""
        return Worker, (self.job,)

    def __call__(self, chunk: Chunk) -> Batch:
        """Process one chunk."""
        job = self.job
        source, items = chunk
        batch = Batch(source)
        good: list[tuple[Conversation, _Whole]] = []
        for item in items:
            if isinstance(item, RowProblem):
                batch.problems.append(item)
                continue
            line, raw = item
            try:
                row = parse_row(raw) if isinstance(raw, bytes) else checked_object(raw)
                shaped = shape_row(row, job.reading)
                _key(row, job.group), _key(row, job.label)
                parts = one_answer_each(shaped.messages) if job.split_turns else [shaped.messages]
            except RowError as exc:
                batch.problems.append(RowProblem(line, str(exc), exc.fix))
                continue
            batch.added += len(parts) - 1
            whole = _Whole(shaped, row)
            good += [(Conversation(messages, line), whole) for messages in parts]
        texts = [written(conversation.messages, whole.shaped.messages) for conversation, whole in good]
        lengths = self._measure([conversation for conversation, _ in good], texts)
        for (conversation, whole), text, length in zip(good, texts, lengths, strict=True):
            problem = length if isinstance(length, RowProblem) else self._too_long(conversation, length)
            if problem:
                batch.problems.append(problem)
                continue
            if not whole.kept:
                batch.shapes[whole.shaped.shape] += 1
                batch.unused.update(whole.shaped.unused)
                batch.trimmed += bool(whole.shaped.trimmed)
            self._keep(batch, conversation, text, whole, length)
        batch.problems.sort(key=lambda problem: problem.line)
        return batch

    def _measure(self, conversations: list[Conversation], texts: list[bytes]) -> list[Any]:
        job = self.job
        if job.tokenizer is None:
            return [None] * len(conversations)
        if self._ruler is None:
            self._ruler = TokenCounter(job.tokenizer, job.max_seq_length, job.cache)
        return self._ruler.measure(conversations, texts)

    def _too_long(self, conversation: Conversation, length: Length | None) -> RowProblem | None:
        if length is None:
            return None
        limit = self.job.max_seq_length
        if not length.trained:
            return RowProblem(
                conversation.line,
                f"has no trainable tokens: the answer lies beyond {limit} tokens",
                "shorten the prompt, raise training.max_seq_length, or remove the row",
            )
        if self.job.drop_long and length.tokens > limit:
            return RowProblem(conversation.line, f"is longer than {limit} tokens", "--long-rows keep, or shorten it")
        return None

    def _keep(
        self, batch: Batch, conversation: Conversation, text: bytes, whole: _Whole, length: Length | None
    ) -> None:
        job, line, messages = self.job, conversation.line, conversation.messages
        loose = loosely(messages)
        if job.secrets:
            for message in messages[whole.kept :]:
                batch.secrets += [(line, *secret) for text in message.texts for secret in find_secrets(text)]
        whole.kept = len(messages)
        group = _key(whole.columns, job.group) if job.group else ""
        if job.split_turns and not group:
            group = loosely(whole.shaped.messages)
        batch.rows.append(
            Row(
                line,
                text,
                _digest(text),
                _digest(loose.encode("utf-8", "surrogatepass")),
                _digest(group.encode("utf-8", "surrogatepass")) if group or job.group else b"",
                _key(whole.columns, job.label),
                length,
                signature_of(loose) if job.near else b"",
            )
        )


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def _key(row: dict[str, Any], column: str | None) -> str:
    if column is None:
        return ""
    value = row.get(column)
    if value is None:
        raise RowError(f"has no {shown(column)}, which the split needs", f"add {column}, or remove the row")
    if isinstance(value, str | int | float | bool):
        return str(value)
    raise RowError(f"has {shown(column)} that is {kind_of(value)}", "write text or a number: the split needs it")
