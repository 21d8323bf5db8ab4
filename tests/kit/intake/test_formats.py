"""A source as a stream of rows: every format and compression gives the same rows, any bytes rows or problems."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kit.data import conversations
from kit.data.conversations import RowProblem, parse_row
from kit.intake import json_values, unpack
from kit.intake.formats import Stream
from kit.intake.sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = [{"prompt": f"ask {number} é🦙", "completion": 'tell "all",\nand more; yes'} for number in range(700)]


def _stream(path: Path | str, **more: Any) -> Stream:
    return Stream(Source(str(path), "file", str(path)), **more)


def _rows(stream: Stream) -> list[Any]:
    return [parse_row(item[1]) if isinstance(item[1], bytes) else item[1] for item in stream]  # type: ignore[index]


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _csv(rows: list[dict[str, Any]], delimiter: str = ",", end: str = "\r\n") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=100)
    return buffer.getvalue()


FORMS: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: _jsonl(ROWS),
    "mark.jsonl": lambda: b"\xef\xbb\xbf" + _jsonl(ROWS),
    "blank_lines.ndjson": lambda: _jsonl(ROWS).replace(b"\n", b"\n\n  \r\n"),
    "array.json": lambda: json.dumps(ROWS).encode(),
    "pretty.json": lambda: b"\xef\xbb\xbf" + json.dumps(ROWS, indent=4, ensure_ascii=False).encode(),
    "values.json": lambda: "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "lines.json": lambda: _jsonl(ROWS),
    "a.csv": lambda: _csv(ROWS),
    "excel.csv": lambda: b"\xef\xbb\xbf" + _csv(ROWS, ";"),
    "unix.csv": lambda: _csv(ROWS, "|", "\n"),
    "a.tsv": lambda: _csv(ROWS, "\t"),
    "a.parquet": lambda: _parquet(ROWS),
    "parquet_in_disguise.jsonl": lambda: _parquet(ROWS),
    "a.jsonl.gz": lambda: gzip.compress(_jsonl(ROWS)),
    "two_members.jsonl.gz": lambda: gzip.compress(_jsonl(ROWS[:9])) + gzip.compress(_jsonl(ROWS[9:])),
    "a.csv.zst": lambda: zstandard.compress(_csv(ROWS)),
    "two_frames.jsonl.zst": lambda: zstandard.compress(_jsonl(ROWS[:9])) + zstandard.compress(_jsonl(ROWS[9:])),
    "gz_of_zst.json.zst.gz": lambda: gzip.compress(zstandard.compress(json.dumps(ROWS).encode())),
    "packed_without_saying.jsonl": lambda: gzip.compress(_jsonl(ROWS)),
    "no_suffix": lambda: _jsonl(ROWS),
    "array_without_suffix": lambda: json.dumps(ROWS).encode(),
    "table.txt": lambda: _csv(ROWS),
}


@pytest.mark.parametrize("name", sorted(FORMS))
def test_the_same_rows_come_out_of_every_form(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FORMS[name]())
    stream = _stream(path)
    assert _rows(stream) == ROWS
    assert stream.broken is None
    assert stream.rows == len(ROWS)
    assert stream.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["array.json", "a.csv", "a.jsonl.gz"])
def test_standard_input_is_read_like_a_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = FORMS[name]()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    stream = Stream(Source("stdin", "stdin"))
    assert _rows(stream) == ROWS
    assert stream.sha256 == hashlib.sha256(content).hexdigest()
    assert not sys.stdin.buffer.closed


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n {"a": 1},\n\n {"a":\n  2}, {"a": 3}]\n', encoding="utf-8")
    assert [item[0] for item in _stream(tmp_path / "a.json")] == [2, 4, 5]  # type: ignore[index]
    (tmp_path / "a.csv").write_text('a,b\n1,"x\ny"\n\n2,z\n', encoding="utf-8")
    assert [item[0] for item in _stream(tmp_path / "a.csv")] == [2, 5]  # type: ignore[index]


def test_an_empty_cell_is_a_missing_value(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,\n1,,\n", encoding="utf-8")
    assert _rows(_stream(tmp_path / "a.csv")) == [{"a": "1", "b": None}]


def test_a_single_object_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"prompt": "a",\n "completion": "b"}', encoding="utf-8")
    assert _rows(_stream(tmp_path / "a.json")) == [{"prompt": "a", "completion": "b"}]


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # without a time, so that the test's name is reproducible


_FRAMES = zstandard.ZstdCompressor(write_checksum=True).compress(b"{}\n" * 99)


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("a.json", b'[{"a": 1}, {"a": 2}', 1, "ends inside its list"),
        ("a.json", b'[{"a": 1},\n {"a": ', 2, "is not valid JSON (Expecting value)"),
        ("a.json", b'[{"a": 1}\n {"a": 2}]', 2, "has no comma between two rows"),
        ("a.json", b'[{"a": 1}]\n[{"a": 2}]', 2, "continues after the end of its list"),
        ("a.json", b'[{"a": 1},\n{"a": "\xff"}]', 2, "is not UTF-8"),
        ("a.json", '[{"a": 1}]'.encode("utf-16-le"), 1, "contains NUL bytes"),
        ("a.json", b"[" * 100_000, 1, "is nested too deeply"),
        ("a.json", b"[" + b"9" * 5000 + b"]", 1, "contains a number that is too long"),
        ("a.csv", b'a,b\n1,"2\n3,4\n', 2, "has an unclosed quote"),
        ("a.csv", b"a,a\n1,2\n", 1, "has 'a' twice in its header"),
        ("a.csv", b"a,,b\n1,2,3\n", 1, "has a column without a name in its header"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), 1, "is UTF-16"),
        ("a.parquet", b"PAR1 and no more", 1, "is not a Parquet file, or broken"),
        ("a.parquet", b"no table", 1, "is not a Parquet file"),
        ("a.parquet", _packed(b"PAR1"), 1, "is Parquet that is compressed or piped"),
        ("a.jsonl", _packed(b"{}\n" * 9999)[:-9], 9999, "ends in the middle of its gzip data"),
        ("a.jsonl", zstandard.compress(b"{}\n" * 99) + _FRAMES[:-1], 198, "ends in the middle of its zstd data"),
        ("a.jsonl", _FRAMES + _FRAMES[:9], 99, "ends in the middle of its zstd data"),
        ("a.jsonl", _FRAMES + b"more", 99, "contains broken zstd data"),
        ("a.jsonl", b"\x1f\x8b garbage", 1, "contains broken gzip data"),
        ("a.jsonl", zstandard.compress(b"{}\n" * 999)[:9] + b"\xff" * 30, 1, "contains broken zstd data"),
        ("a.jsonl", b"PK\x03\x04" + b"\0" * 30, 1, "is a zip archive"),
        ("a.jsonl", _packed(_packed(_packed(b"{}"))), 1, "is compressed more than 3 times"),
        ("a", b"just words\n", 1, "is in no known format"),
    ],
)
def test_a_file_that_breaks_off_says_where(tmp_path: Path, name: str, content: bytes, line: int, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    stream = _stream(tmp_path / name)
    list(stream)
    assert stream.broken
    assert str(stream.broken).startswith(message)
    assert stream.broken.line == line
    assert stream.broken.fix


def test_rows_before_the_break_are_still_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"a": 1}, {"a": 2}, {"a')
    assert len(list(_stream(tmp_path / "a.json"))) == 2


def test_csv_rows_that_are_wrong_are_problems_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'a,b\n1,2\n1\n1,2,3\n\xff,2\n1,"2"x\n1,\x00\n3,4\n')
    items = list(_stream(tmp_path / "a.csv"))
    assert [item.line if isinstance(item, RowProblem) else item[0] for item in items] == [2, 3, 4, 5, 6, 7, 8]
    assert [item.message.split(" (")[0] for item in items if isinstance(item, RowProblem)] == [
        "has 1 cells, but the header has 2",
        "has 3 cells, but the header has 2",
        "is not UTF-8",
        "is not valid CSV",
        "contains NUL bytes, as UTF-16 does",
    ]


def test_a_row_too_long_for_memory_is_a_problem_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "LONGEST_ROW_BYTES", 100)
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n' + b"x" * 1000 + b"\n" + b'{"a": 2}\n' + b"y" * 101)
    items = list(_stream(tmp_path / "a.jsonl"))
    assert [item.line if isinstance(item, RowProblem) else item[0] for item in items] == [1, 2, 3, 4]
    assert all(isinstance(items[at], RowProblem) for at in (1, 3))


def test_a_line_without_an_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "LONGEST_ROW_BYTES", 100)
    monkeypatch.setattr(conversations, "_LONGEST_LINE_BYTES", 1 << 10)
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    with pytest.raises(OSError, match="line 1 is longer than"):
        list(_stream(tmp_path / "a.jsonl"))


def test_a_list_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "_READ_BYTES", 64)
    monkeypatch.setattr(json_values, "LONGEST_ROW_BYTES", 256)
    (tmp_path / "a.json").write_bytes(json.dumps(ROWS).encode())
    assert _rows(_stream(tmp_path / "a.json")) == ROWS
    (tmp_path / "b.json").write_bytes(json.dumps([{"a": "x" * 999}]).encode())
    stream = _stream(tmp_path / "b.json")
    assert list(stream) == []
    assert "contains a row longer than" in str(stream.broken)


def test_parquet_text_that_is_not_utf8_is_the_rows_problem(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff\xfe"], pa.binary()).buffers())
    parquet.write_table(pa.table({"prompt": bad}), tmp_path / "a.parquet")
    first, second = _stream(tmp_path / "a.parquet")
    assert first == (1, {"prompt": "ok"})
    assert isinstance(second, RowProblem)
    assert (second.line, second.message) == (2, "contains text that is not UTF-8")


def test_a_file_that_cannot_be_opened_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        list(_stream(tmp_path / "none.jsonl"))


BYTES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from([bytes([byte]) for byte in b'",\n\ra[]{}:1\0\xff']), max_size=40).map(b"".join),
    st.binary(max_size=60).map(gzip.compress),
    st.binary(max_size=60).map(lambda data: gzip.compress(data)[:-3]),
    st.binary(max_size=60).map(lambda data: b"PAR1" + data + b"PAR1"),
    st.binary(max_size=60).map(lambda data: b"\x28\xb5\x2f\xfd" + data),
)  # fmt: skip


@settings(max_examples=300)
@given(BYTES, st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", None]))
def test_any_bytes_in_any_format_are_rows_or_problems(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, form: str | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    stream = _stream(path, format=form)
    items = list(stream)
    assert stream.rows == len(items)
    for item in items:
        assert isinstance(item, RowProblem) or item[0] >= 1
    if stream.broken is None:
        assert stream.sha256 == hashlib.sha256(content).hexdigest()


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3),
        max_size=8,
    ),
    st.integers(1, 40),
    st.sampled_from([None, 1]),
)
def test_any_json_list_is_read_back(rows: list[dict[str, str]], piece: int, indent: int | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "_READ_BYTES", piece)
        file = io.BytesIO(json.dumps(rows, indent=indent, ensure_ascii=False).encode())
        assert [row for _, row in json_values.read_values(file)] == rows


BOMBS = {
    "gzip": lambda: gzip.compress(b'{"prompt": "a", "completion": "b"}\n' * 400_000),
    "zstd": lambda: zstandard.compress(b'{"prompt": "a", "completion": "b"}\n' * 400_000),
    "one inside the other": lambda: gzip.compress(zstandard.compress(b"{}\n" * 4_000_000)),
    "one line": lambda: gzip.compress(b" " * 12_000_000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_grows_without_measure_is_not_unpacked_to_its_end(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "GROWTH_COUNTS_FROM", 1 << 20)
    monkeypatch.setattr(unpack, "MOST_GROWTH", 20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(BOMBS[bomb]())
    stream = _stream(path)
    rows = sum(1 for _ in stream)
    assert stream.broken is not None
    assert "unpacks to more than 20 times its size" in str(stream.broken)
    assert "unpack it yourself" in stream.broken.fix
    assert rows * 3 <= (1 << 20) + 20 * path.stat().st_size + (2 << 20)  # what was read ahead, and no more


def test_a_small_file_may_grow_as_it_likes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "a", "completion": "b"}\n' * 20_000))
    stream = _stream(path)
    assert (sum(1 for _ in stream), stream.broken) == (20_000, None)


def test_a_row_of_a_list_that_has_a_key_twice_is_a_problem_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1},\n{"b": {"a": 1, "a": 2}},\n{"a": 3}]', encoding="utf-8")
    stream = _stream(path)
    first, problem, last = list(stream)
    assert (first, last, stream.broken) == ((1, {"a": 1}), (3, {"a": 3}), None)
    assert isinstance(problem, RowProblem)
    assert (problem.line, problem.message) == (2, "has the key 'a' twice in one object")
