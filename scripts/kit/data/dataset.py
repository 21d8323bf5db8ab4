"""A data file, read, tokenised and judged: every row is either trained on or named with its line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kit.data.chat_tokenizer import TemplateError
from kit.data.conversations import Conversation, Places, Problems, RowProblem, parse_row, read_lines
from kit.data.encoding import MaskingError, answer_spans, token_spans
from kit.data.pool import in_order, processes_for
from kit.data.shapes import shape_row
from kit.data.token_rows import TokenBlock, TokenRows
from kit.data.turns import RowError
from kit.findings import Finding, error, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.encoding import EncodedRow

_ROWS_AT_ONCE = 256  # read, rendered and tokenised together; bounds what is in memory beside the rows
_BYTES_AT_ONCE = 4 << 20

Lines = list[tuple[int, bytes] | RowProblem]
Rendered = tuple[Conversation, str, list[tuple[int, int]]]


@dataclass(frozen=True)
class EncodedFile:
    """One data file after tokenising.

    Attributes:
        path: The file.
        rows: What can be trained on, in the file's order.
        findings: Everything there is to say about the file; an error where any row cannot be trained on.
        sha256: Of the file's bytes.
    """

    path: Path
    rows: Sequence[EncodedRow]
    findings: tuple[Finding, ...]
    sha256: str

    @property
    def tokens(self) -> int:
        """Tokens in all rows, after truncation."""
        return self.rows.tokens if isinstance(self.rows, TokenRows) else sum(len(row.input_ids) for row in self.rows)

    @property
    def largest_id(self) -> int:
        """The largest token id in all rows."""
        if isinstance(self.rows, TokenRows):
            return self.rows.largest_id
        return max((max(row.input_ids) for row in self.rows), default=0)

    @property
    def trainable_tokens(self) -> int:
        """Tokens the loss is taken on."""
        if isinstance(self.rows, TokenRows):
            return self.rows.trainable_tokens
        return sum(row.trainable_tokens for row in self.rows)


@dataclass
class _Chunk:
    """What became of some lines."""

    block: TokenBlock = field(default_factory=TokenBlock)
    problems: list[RowProblem] = field(default_factory=list)
    lossless: list[int] = field(default_factory=list)
    merged_system: list[int] = field(default_factory=list)
    controls: list[int] = field(default_factory=list)
    whole: int = 0
    ended: int = 0


@dataclass(frozen=True)
class _Encoder:
    """Turns lines into tokens, in this process or in another."""

    tokenizer: ChatTokenizer
    max_seq_length: int

    def __call__(self, lines: Lines) -> _Chunk:
        chunk, tokenizer = _Chunk(), self.tokenizer
        good: list[Rendered] = []
        for item in lines:
            row = render(read_row(item), tokenizer)
            if isinstance(row, RowProblem):
                chunk.problems.append(row)
            else:
                good.append(row)
        encodings = tokenizer.encode_batch([text for _, text, _ in good])
        for (conversation, _, spans), encoding in zip(good, encodings, strict=True):
            line, ids, answers = conversation.line, encoding.ids, token_spans(encoding, spans)
            if not chunk.block.add(ids, answers, line, self.max_seq_length):
                chunk.lossless.append(line)
            elif len(ids) <= self.max_seq_length:
                chunk.whole += 1
                chunk.ended += ends(ids, answers, tokenizer.eos_token_id)
            if tokenizer.merges_system and conversation.messages[0].role == "system":
                chunk.merged_system.append(line)
            if has_control_tokens(conversation, tokenizer):
                chunk.controls.append(line)
        return chunk


def load_file(path: Path, tokenizer: ChatTokenizer, max_seq_length: int, processes: int | None = None) -> EncodedFile:
    """Read, tokenise and judge one JSONL file, on all cores unless told how many processes.

    Raises:
        OSError: The file cannot be read.
        WorkerDiedError: A worker process was killed.
    """
    rows, problems = TokenRows(), Problems()
    lossless, merged_system, controls = Places(), Places(), Places()
    whole = ended = 0
    with path.open("rb") as file:
        chunks = in_chunks(read_lines(file))
        for chunk in in_order(_Encoder(tokenizer, max_seq_length), chunks, processes_for(processes)):
            rows.extend(chunk.block)
            for problem in chunk.problems:
                problems.add(problem)
            lossless.extend(chunk.lossless)
            merged_system.extend(chunk.merged_system)
            controls.extend(chunk.controls)
            whole, ended = whole + chunk.whole, ended + chunk.ended

    findings = problems.findings(path)
    if lossless:
        findings.append(
            error(
                "data.no_loss",
                f"{lossless} would carry no loss: the answer lies beyond {max_seq_length} tokens",
                "shorten the prompt, raise training.max_seq_length, or take the row out",
                f"{path}:{lossless.first[0]}",
            )
        )
    findings += _remarks_on_turns(path, merged_system, controls)
    findings += _remarks_on_tokens(path, rows, max_seq_length)
    if whole and not ended:
        findings.append(
            warning(
                "data.no_end",
                f"the chat template ends no answer with the eos_token, {tokenizer.special_tokens['eos_token']!r}: "
                "the model will not learn to stop there",
                "make eos_token in tokenizer_config.json the token that the template writes after an answer",
                str(path),
            )
        )
    if not rows and not findings:
        findings.append(error("data.empty", "the file has no rows", "write one JSON object per line", str(path)))
    return EncodedFile(path, rows, tuple(findings), file_sha256(path))


def in_chunks(lines: Iterable[tuple[int, bytes] | RowProblem]) -> Iterator[Lines]:
    """Cut a file's lines into pieces of work, bounded in rows and in bytes."""
    chunk: Lines = []
    size = 0
    for item in lines:
        chunk.append(item)
        size += 0 if isinstance(item, RowProblem) else len(item[1])
        if len(chunk) >= _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def read_row(item: tuple[int, bytes] | RowProblem) -> Conversation | RowProblem:
    """Read one line of JSONL."""
    if isinstance(item, RowProblem):
        return item
    line, raw = item
    try:
        return Conversation(shape_row(parse_row(raw)).messages, line)
    except RowError as exc:
        return RowProblem(line, str(exc), exc.fix)


def render(item: Conversation | RowProblem, tokenizer: ChatTokenizer) -> Rendered | RowProblem:
    """Render a conversation and find its answers; what the template refuses is a problem."""
    if isinstance(item, RowProblem):
        return item
    try:
        return item, *answer_spans(item, tokenizer)
    except (TemplateError, MaskingError) as exc:
        return RowProblem(item.line, str(exc), "change the row's turns, or take it out")


def has_control_tokens(conversation: Conversation, tokenizer: ChatTokenizer) -> bool:
    """Tell whether the turns hold what the tokenizer reads as a special token; only the template should write those."""
    return any(tokenizer.control_tokens.search(message.content) for message in conversation.messages)


def ends(ids: list[int], spans: list[tuple[int, int]], eos_token_id: int) -> bool:
    """Tell whether an answer teaches the model to stop."""
    return any(eos_token_id in ids[begin:end] for begin, end in spans)


def file_sha256(path: Path) -> str:
    """Hash a file's bytes, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remarks_on_turns(path: Path, merged_system: Places, controls: Places) -> list[Finding]:
    findings = []
    if merged_system:
        findings.append(
            warning(
                "data.system_merged",
                f"{merged_system} has a system message, which this model's template cannot carry: "
                "it is put in front of the first user turn, as is usual for this model",
                where=f"{path}:{merged_system.first[0]}",
            )
        )
    if controls:
        findings.append(
            warning(
                "data.control_tokens",
                f"{controls} has one of the model's control tokens in its text: "
                "the model reads it as the token, not as the text",
                "take it out; the chat template writes the control tokens",
                f"{path}:{controls.first[0]}",
            )
        )
    return findings


def _remarks_on_tokens(path: Path, rows: TokenRows, max_seq_length: int) -> list[Finding]:
    findings = []
    truncated, lost, longest = Places(), 0, 0
    for line, full_length in zip(rows.lines, rows.full_lengths, strict=True):
        if full_length > max_seq_length:
            truncated.add(line)
            lost += full_length - max_seq_length
            longest = max(longest, full_length)
    if truncated:
        findings.append(
            warning(
                "data.truncated",
                f"{truncated} will be cut at {max_seq_length} tokens, "
                f"{lost:,} tokens in all; the longest has {longest:,}",
                "raise training.max_seq_length, or shorten the rows",
                f"{path}:{truncated.first[0]}",
            )
        )
    if rows:
        tokens, trained = rows.tokens, rows.trainable_tokens
        findings.append(
            ok(
                "data.rows",
                f"{len(rows):,} rows, {tokens:,} tokens, longest {max(rows.lengths):,}; "
                f"the loss is taken on {trained:,} ({trained / tokens:.0%})",
                where=str(path),
            )
        )
    return findings
