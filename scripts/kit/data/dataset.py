"""A data file, read, tokenised and judged: every row is either trained on or named with its line."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.data.chat_tokenizer import TemplateError
from kit.data.conversations import RowProblem, collapse, read_conversations, rows_at
from kit.data.encoding import EncodedRow, MaskingError, answer_spans, label
from kit.findings import Finding, error, ok, warning

if TYPE_CHECKING:
    from pathlib import Path

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.conversations import Conversation

_ROWS_AT_ONCE = 64  # tokenised together, on all cores; bounds what is in memory beside the rows


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
    rows: tuple[EncodedRow, ...]
    findings: tuple[Finding, ...]
    sha256: str

    @property
    def tokens(self) -> int:
        """Tokens in all rows, after truncation."""
        return sum(len(row.input_ids) for row in self.rows)

    @property
    def trainable_tokens(self) -> int:
        """Tokens the loss is taken on."""
        return sum(row.trainable_tokens for row in self.rows)


def load_file(path: Path, tokenizer: ChatTokenizer, max_seq_length: int) -> EncodedFile:
    """Read, tokenise and judge one JSONL file.

    Raises:
        OSError: The file cannot be read.
    """
    rows: list[EncodedRow] = []
    problems: list[RowProblem] = []
    lossless: list[int] = []
    merged_system: list[int] = []
    controls: list[int] = []
    items = read_conversations(path)
    while chunk := list(itertools.islice(items, _ROWS_AT_ONCE)):
        rendered = [_render(item, tokenizer) for item in chunk]
        problems += [item for item in rendered if isinstance(item, RowProblem)]
        good = [item for item in rendered if not isinstance(item, RowProblem)]
        encodings = tokenizer.encode_batch([text for _, text, _ in good])
        for (conversation, _, spans), encoding in zip(good, encodings, strict=True):
            row = label(encoding, spans, conversation.line, max_seq_length)
            if row.trainable_tokens:
                rows.append(row)
            else:
                lossless.append(row.line)
            if tokenizer.merges_system and conversation.messages[0].role == "system":
                merged_system.append(row.line)
            if any(tokenizer.control_tokens.search(message.content) for message in conversation.messages):
                controls.append(row.line)

    findings = collapse(path, problems)
    if lossless:
        findings.append(
            error(
                "data.no_loss",
                f"{rows_at(lossless)} would carry no loss: the answer lies beyond {max_seq_length} tokens",
                "shorten the prompt, raise training.max_seq_length, or take the row out",
                f"{path}:{lossless[0]}",
            )
        )
    findings += _remarks_on_turns(path, merged_system, controls)
    findings += _remarks_on_tokens(path, rows, tokenizer, max_seq_length)
    if not rows and not findings:
        findings.append(error("data.empty", "the file has no rows", "write one JSON object per line", str(path)))
    return EncodedFile(path, tuple(rows), tuple(findings), file_sha256(path))


def _render(
    item: Conversation | RowProblem, tokenizer: ChatTokenizer
) -> tuple[Conversation, str, list[tuple[int, int]]] | RowProblem:
    if isinstance(item, RowProblem):
        return item
    try:
        return item, *answer_spans(item, tokenizer)
    except (TemplateError, MaskingError) as exc:
        return RowProblem(item.line, str(exc), "change the row's turns, or take it out")


def file_sha256(path: Path) -> str:
    """Hash a file's bytes, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remarks_on_turns(path: Path, merged_system: list[int], controls: list[int]) -> list[Finding]:
    findings = []
    if merged_system:
        findings.append(
            warning(
                "data.system_merged",
                f"{rows_at(merged_system)} has a system message, which this model's template cannot carry: "
                "it is put in front of the first user turn, as is usual for this model",
                where=f"{path}:{merged_system[0]}",
            )
        )
    if controls:
        findings.append(
            warning(
                "data.control_tokens",
                f"{rows_at(controls)} has one of the model's control tokens in its text: "
                "the model reads it as the token, not as the text",
                "take it out; the chat template writes the control tokens",
                f"{path}:{controls[0]}",
            )
        )
    return findings


def _remarks_on_tokens(
    path: Path, rows: list[EncodedRow], tokenizer: ChatTokenizer, max_seq_length: int
) -> list[Finding]:
    findings = []
    if truncated := [row for row in rows if row.full_length > max_seq_length]:
        lost = sum(row.full_length - max_seq_length for row in truncated)
        longest = max(row.full_length for row in truncated)
        findings.append(
            warning(
                "data.truncated",
                f"{rows_at([row.line for row in truncated])} will be cut at {max_seq_length} tokens, "
                f"{lost:,} tokens in all; the longest has {longest:,}",
                "raise training.max_seq_length, or shorten the rows",
                f"{path}:{truncated[0].line}",
            )
        )
    whole = [row for row in rows if row.full_length <= max_seq_length]
    if whole and not any(tokenizer.eos_token_id in row.labels for row in whole):
        findings.append(
            warning(
                "data.no_end",
                f"the chat template ends no answer with the eos_token, {tokenizer.special_tokens['eos_token']!r}: "
                "the model will not learn to stop there",
                "make eos_token in tokenizer_config.json the token that the template writes after an answer",
                str(path),
            )
        )
    if rows:
        tokens, trained = sum(len(row.input_ids) for row in rows), sum(row.trainable_tokens for row in rows)
        findings.append(
            ok(
                "data.rows",
                f"{len(rows):,} rows, {tokens:,} tokens, longest {max(len(row.input_ids) for row in rows):,}; "
                f"the loss is taken on {trained:,} ({trained / tokens:.0%})",
                where=str(path),
            )
        )
    return findings
