"""A data file, read, tokenised and judged: every row is either trained on or named with its line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.chat_tokenizer import TemplateError
from kit.conversations import Conversation, RowProblem, collapse, read_conversations, rows_at
from kit.encoding import EncodedRow, MaskingError, encode
from kit.findings import Finding, error, ok, warning

if TYPE_CHECKING:
    from pathlib import Path

    from kit.chat_tokenizer import ChatTokenizer


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
    merged_system = 0
    for item in read_conversations(path):
        if isinstance(item, RowProblem):
            problems.append(item)
            continue
        try:
            row = encode(item, tokenizer, max_seq_length)
        except (TemplateError, MaskingError) as exc:
            problems.append(RowProblem(item.line, str(exc), "change the row's roles, or take it out"))
            continue
        merged_system += tokenizer.merges_system and _has_system(item)
        if row.trainable_tokens:
            rows.append(row)
        else:
            lossless.append(item.line)

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
    findings += _remarks(path, rows, merged_system, max_seq_length)
    if not rows and not findings:
        findings.append(error("data.empty", "the file has no rows", "write one JSON object per line", str(path)))
    return EncodedFile(path, tuple(rows), tuple(findings), file_sha256(path))


def file_sha256(path: Path) -> str:
    """Hash a file's bytes, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_system(conversation: Conversation) -> bool:
    return conversation.messages[0].role == "system"


def _remarks(path: Path, rows: list[EncodedRow], merged_system: int, max_seq_length: int) -> list[Finding]:
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
    if merged_system:
        findings.append(
            warning(
                "data.system_merged",
                f"{merged_system:,} rows have a system message, which this model's template cannot carry: "
                "each is put in front of its first user turn, as is usual for this model",
                where=str(path),
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
