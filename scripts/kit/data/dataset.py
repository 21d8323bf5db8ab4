"""A data file, read, tokenised and checked: every row is either trained on or reported with its line."""

from __future__ import annotations

import codecs
import os
import shlex
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, warning
from kit.data.conversations import BYTE_ORDER_MARK, LineNumbers, Problems, RowProblem, read_lines, read_row
from kit.data.encoding import encode_rows
from kit.data.pool import in_order, processes_for
from kit.data.remarks import REMARKS, Mark, add_names, columns_finding, end_findings
from kit.data.token_rows import RowPacker, TokenBlock
from kit.files.digest import open_file_sha256
from kit.files.regular_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.token_rows import TokenRows

_ROWS_AT_ONCE = 256  # read, rendered and tokenised together; bounds the memory beside the rows
_BYTES_AT_ONCE = 4 << 20

Lines = list[tuple[int, bytes] | RowProblem]


@dataclass(frozen=True)
class EncodedFile:
    """One data file after tokenising."""

    path: Path
    rows: TokenRows  # those that can be trained on, in file order
    findings: tuple[Finding, ...]  # with an error if any row cannot be trained on
    sha256: str


@dataclass
class _Chunk:
    """The result of some lines."""

    block: TokenBlock = field(default_factory=TokenBlock)
    problems: list[RowProblem] = field(default_factory=list)
    lossless: list[int] = field(default_factory=list)
    marked: dict[Mark, list[int]] = field(default_factory=lambda: {remark.mark: [] for remark in REMARKS})
    unused: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    ended: int = 0


@dataclass(frozen=True)
class _Encoder:
    """Turns lines into tokens, in this process or a worker."""

    tokenizer: ChatTokenizer
    max_seq_length: int

    def __call__(self, lines: Lines) -> _Chunk:
        chunk = _Chunk()
        for row in encode_rows([read_row(item) for item in lines], self.tokenizer):
            if isinstance(row, RowProblem):
                chunk.problems.append(row)
                continue
            line = row.conversation.line
            chunk.unused.update(row.conversation.unused)
            if not chunk.block.add(row.ids, row.answers, line, self.max_seq_length):
                chunk.lossless.append(line)
            elif len(row.ids) <= self.max_seq_length:
                chunk.whole += 1
                chunk.ended += Mark.ENDS in row.marks
            for mark in row.marks & ~Mark.ENDS:
                chunk.marked[mark].append(line)
        return chunk


def load_file(path: Path, tokenizer: ChatTokenizer, max_seq_length: int, processes: int | None = None) -> EncodedFile:
    """Read, tokenise and check one JSONL file, on all cores or in ``processes`` of them.

    Raises:
        OSError: The file cannot be read.
        WorkerDiedError: A worker process was killed.
    """
    packer, problems = RowPacker(), Problems()
    lossless = LineNumbers()
    marked = {remark.mark: LineNumbers() for remark in REMARKS}
    unused: Counter[str] = Counter()
    whole = ended = 0
    with open_regular(path) as file:
        before, begin = os.fstat(file.fileno()).st_mtime_ns, file.peek(1)[:512]
        chunks = in_chunks(read_lines(file))
        for chunk in in_order(_Encoder(tokenizer, max_seq_length), chunks, processes_for(processes)):
            packer.extend(chunk.block)
            for problem in chunk.problems:
                problems.add(problem)
            lossless.extend(chunk.lossless)
            for mark, places in marked.items():
                places.extend(chunk.marked[mark])
            add_names(unused, chunk.unused)
            whole, ended = whole + chunk.whole, ended + chunk.ended
        digest, is_other = open_file_sha256(file), os.fstat(file.fileno()).st_mtime_ns != before

    rows, findings = packer.rows(), problems.findings(path)
    # A list's last row has no comma behind it, so one row of a JSON list can parse.
    if findings and len(rows) <= 1 and _is_of_another_format(begin):
        fix = f"make data INPUT={shlex.quote(str(path))} (it reads lists, tables and compressed files)"
        found = error("data.format", "is not JSON Lines: it does not begin with a JSON object", fix, str(path))
        findings = [found, *findings] if _is_text(begin) else [found]
    if is_other:
        message = "changed while it was being read"
        findings.append(error("data.changed", message, "wait until it is complete, then run this again", str(path)))
    if lossless:
        findings.append(
            error(
                "data.no_loss",
                f"{lossless} has no trainable tokens: the answer lies beyond {max_seq_length} tokens",
                "shorten the prompt, raise training.max_seq_length, or remove the row",
                f"{path}:{lossless.first[0]}",
            )
        )
    findings += [
        remark.finding(str(places), f"{path}:{places.first[0]}")
        for remark in REMARKS
        if (places := marked[remark.mark])
    ]
    if unused:
        findings.append(columns_finding(unused, str(path)))
    findings += _remarks_on_tokens(path, rows, max_seq_length)
    if whole:
        findings += end_findings(tokenizer, some_end=ended > 0, where=str(path))
    if not rows and not findings:
        findings.append(error("data.empty", "the file has no rows", "write one JSON object per line", str(path)))
    return EncodedFile(path, rows, tuple(findings), digest)


def _is_of_another_format(begin: bytes) -> bool:
    is_utf16 = begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return not is_utf16 and begin.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] != b"{"


def _is_text(begin: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(begin)  # whose end may lie within a character
    except UnicodeDecodeError:
        return False
    return b"\0" not in begin


def in_chunks(lines: Iterable[tuple[int, bytes] | RowProblem]) -> Iterator[Lines]:
    """Group a file's lines into chunks, bounded in rows and bytes."""
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


def _remarks_on_tokens(path: Path, rows: TokenRows, max_seq_length: int) -> list[Finding]:
    findings = []
    too_long = rows.full_lengths > max_seq_length
    truncated = LineNumbers()
    truncated.extend(rows.lines[too_long].tolist())
    if truncated:
        full = rows.full_lengths[too_long]
        lost, longest = int(full.sum() - len(full) * max_seq_length), int(full.max())
        findings.append(
            warning(
                "data.truncated",
                f"{truncated} exceeds {max_seq_length} tokens: {lost:,} tokens will be cut; longest row {longest:,}",
                "raise training.max_seq_length, or shorten the rows",
                f"{path}:{truncated.first[0]}",
            )
        )
    if rows:
        tokens, trained = rows.tokens, rows.trainable_tokens
        findings.append(
            ok(
                "data.rows",
                f"{len(rows):,} rows, {tokens:,} tokens, {trained:,} of them trainable ({trained / tokens:.0%}); "
                f"longest row {int(rows.lengths.max()):,}",
                where=str(path),
            )
        )
    return findings
