"""Rows of data, damaged or never right: each is trained on for exactly what it says, or named with its line."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.conversations import RowProblem, read_lines, read_row
from kit.data.dataset import EncodedFile, load_file
from kit.data.encoding import IGNORE_INDEX, EncodedRow, encode_rows
from kit.data.token_rows import RowPacker, TokenBlock
from kit.demo.tokenizer import BOS_ID, CHAT_TEMPLATE, EOS_ID, byte_tokenizer, save_tokenizer
from kit.intake.formats import Stream
from kit.intake.sources import Source
from kit.intake.work import RowPipeline, Worker
from torture.damage import BYTES
from torture.fuzzing import FaultError, scratch
from torture.row_meaning import Refusal, Turn, turns_of
from torture.row_mutants import make_mutant

if TYPE_CHECKING:
    from pathlib import Path

    from kit.data.conversations import Conversation
    from kit.intake.work import Batch
    from torture.fuzzing import Mutant

_FILE_SHARE = 0.3  # of the files are read as a whole too: the same rows by the same functions
_LONGEST = 256  # tokens, a byte each: some rows are longer
_THOUGHT = "reasoning_content"  # what the template writes in front of an answer


@dataclass(frozen=True)
class RowFuzzer:
    """Files of good, bad and damaged rows, among blank lines; see ``torture.fuzzing.Fuzzer``."""

    name: str = "rows"
    suffix: str = ".jsonl"

    def mutant(self, source: Random) -> Mutant:
        """Make a file, and remember which rows in it were left as they were made."""
        return make_mutant(source)

    def judge(self, mutant: Mutant) -> dict[str, int]:
        """Read it as training does, and as data preparation does, and account for every line; see ``Fuzzer``."""
        good, chance = mutant.details
        folder = _scratch()
        path = folder / "rows.jsonl"
        path.write_bytes(mutant.content)
        fed = _fed(mutant.content)
        taken, refused = _as_trained(path)
        numbers = sorted([*taken, *refused])
        if numbers != sorted(fed):
            raise FaultError(f"lines {sorted(set(fed) ^ set(numbers))[:5]} are neither taken nor refused, or both")
        too_long = {line for line, problem in refused.items() if problem.message.startswith("has no trainable tokens")}
        if missed := sorted(good & refused.keys() - too_long):
            raise FaultError(f"line {missed[0]} is a good row and refused: {refused[missed[0]].message}")
        for line, (conversation, row) in taken.items():
            _check_taken(fed[line], conversation, row, line)
        for problem in refused.values():
            if not (problem.message and problem.fix and f"{problem.message}{problem.fix}".isprintable()):
                raise FaultError(
                    f"line {problem.line}: a problem without words or fix, or unprintable: {problem!r:.200}"
                )
        if chance < _FILE_SHARE:
            _check_file(load_file(path, _tokenizer(), _LONGEST, processes=1), path, taken, refused)
        _check_intake(path, taken, refused, secrets=chance < 0.02)
        outcomes = Counter({"rows fed": len(fed), "rows taken": len(taken), "rows refused": len(refused)})
        if chance < 0.2:
            again = Random(chance)  # noqa: S311 - no secret
            outcomes += _as_array(again, folder / "rows.json", fed, len(taken))
        return dict(outcomes)


@functools.cache
def _scratch() -> Path:
    return scratch("fuzz-rows-")


@functools.cache
def _tokenizer() -> ChatTokenizer:
    answer = "{{ ' ' + message['content'] + eos_token }}"
    thought = f"{{% if message.{_THOUGHT} %}}{{{{ ' (' + message.{_THOUGHT} + ')' }}}}{{% endif %}}"
    template = CHAT_TEMPLATE.replace(answer, thought + answer)
    save_tokenizer(byte_tokenizer(), _scratch(), model_max_length=_LONGEST, chat_template=template)
    return ChatTokenizer.load(str(_scratch()))


def _fed(content: bytes) -> dict[int, bytes]:
    """Return the lines that are not blank, by number."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return {number: line for number, line in enumerate(lines, start=1) if line.strip()}


def _as_trained(path: Path) -> tuple[dict[int, tuple[Conversation, EncodedRow]], dict[int, RowProblem]]:
    with path.open("rb") as file:
        rows = encode_rows([read_row(item) for item in read_lines(file)], _tokenizer())
    refused = {row.line: row for row in rows if isinstance(row, RowProblem)}
    packer, block, conversations = RowPacker(), TokenBlock(), []
    for row in rows:
        if isinstance(row, RowProblem):
            continue
        line = row.conversation.line
        if block.add(row.ids, row.answers, line, _LONGEST):
            conversations.append(row.conversation)
        else:
            refused[line] = RowProblem(line, "has no trainable tokens", "shorten it")
    packer.extend(block)
    return {row.line: (said, row) for said, row in zip(conversations, packer.rows(), strict=True)}, refused


def _check_taken(raw: bytes, conversation: Conversation, row: EncodedRow, line: int) -> None:
    try:
        turns, left = turns_of(raw)
    except Refusal as exc:
        raise FaultError(f"line {line} is taken, and has {exc}") from exc
    found = [
        Turn(message.role, message.content, message.is_answer, dict(message.thoughts).get(_THOUGHT, ""), message.left)
        for message in conversation.messages
    ]
    if found != turns:
        raise FaultError(f"line {line} is taken for {found!r:.150} and says {turns!r:.150}")
    if {*conversation.unused} != left:
        raise FaultError(f"line {line} leaves {left} behind and names {conversation.unused}")
    ids: list[int] = []
    labels: list[int] = []
    for tokens, is_learnt in _tokens_of(turns):
        ids += tokens
        labels += tokens if is_learnt else [IGNORE_INDEX] * len(tokens)
    if row.input_ids != ids[:_LONGEST] or row.labels != labels[:_LONGEST]:
        raise FaultError(f"line {line}: the loss is not on its answers, or its tokens are others")


def _tokens_of(turns: list[Turn]) -> list[tuple[list[int], bool]]:
    """Render as the template does, in parts that no token spans, each with whether it is learnt."""
    if turns[0].role == "system":
        turns = [Turn("user", f"{turns[0].text}\n\n{turns[1].text}"), *turns[2:]]
    parts = [([BOS_ID], False)]
    for turn in turns:
        thought = f" ({turn.thought})" if turn.thought else ""
        asked, told = f"[INST] {turn.text} [/INST]", f"{thought} {turn.text}"
        parts.append((_read(asked) if turn.role == "user" else [*_read(told), EOS_ID], turn.is_learnt))
    return parts


def _read(text: str) -> list[int]:
    """Tokenise text letter by letter: no name of a special token is whole in there, so all of it is text."""
    return [token for letter in text for token in _letter(letter)]


@functools.cache
def _letter(letter: str) -> tuple[int, ...]:
    return tuple(_tokenizer().tokenizer.encode(letter, add_special_tokens=False).ids)


def _check_file(file: EncodedFile, path: Path, taken: dict[int, Any], refused: dict[int, RowProblem]) -> None:
    if [row.line for row in file.rows] != list(taken) or list(file.rows) != [row for _, row in taken.values()]:
        raise FaultError("the file is taken otherwise than its rows one by one")
    counted = 0
    for finding in file.findings:
        if finding.severity != "error" or finding.id == "data.format":  # of the file, beside its rows' own
            continue
        several = re.match(r"each of ([\d,]+) rows", finding.message)
        counted += int(several[1].replace(",", "")) if several else 1
        line = finding.where.removeprefix(f"{path}:")
        if refused and (not line.isdigit() or int(line) not in refused):
            raise FaultError(f"a finding at no row that is refused: {finding.where}")
    if refused and counted != len(refused):
        raise FaultError(f"the findings count {counted} rows and {len(refused)} are refused")


def _check_intake(path: Path, taken: dict[int, Any], refused: dict[int, RowProblem], *, secrets: bool) -> None:
    """Data preparation must take the same rows, and write them so that they read back the same."""
    with path.open("rb") as file:
        items = list(read_lines(file))
    batch = Worker(RowPipeline(tokenizer=_tokenizer(), max_seq_length=_LONGEST, secrets=secrets))((0, items))
    if [row.line for row in batch.rows] != list(taken) or [one.line for one in batch.problems] != sorted(refused):
        lines = {row.line for row in batch.rows} ^ set(taken)
        raise FaultError(f"data preparation and training do not agree on lines {sorted(lines)[:5]}")
    if batch.unused != Counter(name for conversation, _ in taken.values() for name in conversation.unused):
        raise FaultError(f"data preparation names {batch.unused} as left behind, and training other keys")
    for row in batch.rows:
        conversation, encoded = taken[row.line]
        again = read_row((row.line, row.text))
        if again != conversation:
            raise FaultError(f"line {row.line} is written as another row than it was: {row.text!r:.200}")
        if row.length is None or row.length.trained != encoded.trainable_tokens:
            raise FaultError(f"line {row.line} is measured as {row.length} and has {encoded.trainable_tokens} tokens")


def _as_array(source: Random, path: Path, fed: dict[int, bytes], taken: int) -> Counter[str]:
    """Read the rows that are JSON as one array, whole and then damaged."""
    array = b"[" + b",\n".join(line for line in fed.values() if _is_json(line)) + b"]"
    batch, stream = _read_array(path, array)
    if stream.broken is not None or len(batch.rows) != taken:
        raise FaultError(f"of {taken} good rows {len(batch.rows)} are taken from an array; broken: {stream.broken}")
    kind = source.choice(list(BYTES))
    damaged, stream = _read_array(path, BYTES[kind](source, array))
    if len(damaged.rows) + len(damaged.problems) != stream.rows:
        raise FaultError(f"of {stream.rows} values {len(damaged.rows)} are taken, {len(damaged.problems)} refused")
    if stream.broken is not None and not (str(stream.broken).isprintable() and stream.broken.fix):
        raise FaultError(f"an array broken off without words: {stream.broken!r:.200}")
    return Counter({"rows fed in arrays": len(batch.rows) + len(batch.problems) + stream.rows})


def _read_array(path: Path, content: bytes) -> tuple[Batch, Stream]:
    path.write_bytes(content)
    stream = Stream(Source(path.name, "file", str(path)), format="json")
    worker = Worker(RowPipeline(tokenizer=_tokenizer(), max_seq_length=_LONGEST, secrets=False))
    return worker((0, list(stream))), stream


def _is_json(line: bytes) -> bool:
    if b"\0" in line:
        return False
    try:
        json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    return True
