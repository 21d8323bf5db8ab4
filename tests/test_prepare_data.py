"""From raw rows to training data: every row counted, the same bytes each time, all or nothing."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from chat_folders import write_chat_folder
from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import data
from kit.intake import formats
from kit.intake.publish import LEDGER, StagedFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

BAD_DATA = PROJECT_ROOT / "tests" / "fixtures" / "bad_data"
GOOD = {"prompt": "ask", "completion": "tell"}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "LENGTH_CACHE", tmp_path / "cache" / "lengths.sqlite3")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_chat_folder(tmp_path_factory.mktemp("model")))


def _run(model: str, *arguments: str, length: int = 100) -> int:
    return call(data, [*arguments, "--model", model, "--max-seq-length", str(length), "--processes", "1"])


def _jsonl(name: str, rows: Sequence[Any]) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return name


def _rows(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"prompt": f"ask {number}", "completion": f"tell {number}"} for number in range(start, start + count)]


def _read(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def _card(folder: str = "data/processed") -> dict[str, Any]:
    return dict(json.loads(Path(folder, "data_card.json").read_text(encoding="utf-8")))


def _files(folder: str = "data/processed") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _told(capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(capsys.readouterr().out)["findings"]:
        found.setdefault(finding["id"], []).append(finding)
    return found


def test_rows_become_two_files_and_a_card(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(model, _jsonl("a.jsonl", _rows(40)), "--val-share", "0.25") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == (
        'next: make validate SET="data.train_file=data/processed/train.jsonl data.val_file=data/processed/val.jsonl"'
    )
    assert "written: data/processed" in out
    train, val = _read("data/processed/train.jsonl"), _read("data/processed/val.jsonl")
    assert (len(train), len(val)) == (30, 10)
    expected = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in _rows(40)
    ]
    assert [row for row in expected if row in train] == train  # in the order they were read
    assert sorted(map(str, train + val)) == sorted(map(str, expected))
    card = _card()
    assert card["steps"] == {"read": 40, "dropped": {}, "train": 30, "val": 10}
    assert card["tokens"]["train"]["rows"] == 30
    assert "data_card.md" in _files()
    assert "rejects.jsonl" not in _files()


def test_the_same_rows_give_the_same_bytes(model: str) -> None:
    _jsonl("a.jsonl", _rows(300))
    arguments = ("a.jsonl", "--dedupe", "exact")
    assert _run(model, *arguments, "--out", "one") == _run(model, *arguments, "--out", "two") == 0
    assert call(data, [*arguments, "--out", "three", "--model", model, "--max-seq-length", "100"]) == 0
    assert _files("one") == _files("two") == _files("three")
    assert _run(model, *arguments, "--seed", "7", "--out", "four") == 0
    assert _files("four")["val.jsonl"] != _files("one")["val.jsonl"]


def test_what_was_written_passes_its_own_audit_and_is_trained_on(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(model, _jsonl("a.jsonl", _rows(40)))
    capsys.readouterr()
    assert _run(model, "data/processed", "--audit", "--json") == 0
    found = _told(capsys)
    assert {finding["severity"] for finding in found["data.leakage"] + found["data.duplicates"]} == {"ok"}


def test_every_source_and_shape_ends_in_one_pair_of_files(model: str) -> None:
    _jsonl("in/a.jsonl", _rows(3))
    Path("in/b.json.gz").write_bytes(gzip.compress(json.dumps([{"question": "q", "answer": "a"}], indent=1).encode()))
    Path("in/c.csv").write_text("instruction,input,output\ni,,o\n", encoding="utf-8")
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]
    parquet.write_table(pa.Table.from_pylist([{"conversations": turns}]), "in/d.parquet")
    assert _run(model, "in") == 0
    card = _card()
    assert [source["rows"] for source in card["sources"]] == [3, 1, 1, 1]
    assert card["shapes"] == {"conversations": 1, "instruction/output": 1, "prompt/completion": 3, "question/answer": 1}
    rows = _read("data/processed/train.jsonl") + _read("data/processed/val.jsonl")
    assert {"role": "system", "content": "s"} in [row["messages"][0] for row in rows]


def test_a_bad_row_stops_everything(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(model, _jsonl("a.jsonl", [GOOD, "{", {"prompt": "a"}, GOOD])) == 1
    out = capsys.readouterr().out
    assert "a.jsonl:2: the row at line 2 is not valid JSON" in out
    assert "a.jsonl:3: the row at line 3 has no completion" in out
    assert "nothing was written" in out
    assert not Path("data").exists()


def test_bad_rows_are_left_out_when_asked_counted_and_listed(model: str) -> None:
    rows = [GOOD, "{", {"prompt": "a"}, {"prompt": "b" * 200, "completion": "c"}, {"prompt": "d", "completion": "e"}]
    assert _run(model, _jsonl("a.jsonl", rows), "--on-bad-row", "drop") == 0
    assert [(entry["file"], entry["line"]) for entry in _read("data/processed/rejects.jsonl")] == [
        ("a.jsonl", 2), ("a.jsonl", 3), ("a.jsonl", 4),
    ]  # fmt: skip
    assert all(entry["reason"] and entry["fix"] for entry in _read("data/processed/rejects.jsonl"))
    steps = _card()["steps"]
    assert steps["read"] == 5
    assert sum(steps["dropped"].values()) == 3


def test_when_every_row_is_bad_nothing_is_written(model: str) -> None:
    assert _run(model, _jsonl("a.jsonl", ["{", "["]), "--on-bad-row", "drop") == 1
    assert not Path("data").exists()


def test_repeated_rows_are_dropped_when_asked_and_named(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*_rows(5), *_rows(3), {"prompt": "ASK 0", "completion": "tell  0"}]
    _jsonl("a.jsonl", rows)
    assert _run(model, "a.jsonl", "--out", "all") == 0
    assert "3 rows repeat an earlier row exactly (a.jsonl:6 = a.jsonl:1, " in capsys.readouterr().out
    assert _run(model, "a.jsonl", "--dedupe", "exact", "--out", "unique") == 0
    steps = _card("unique")["steps"]
    assert (steps["read"], sum(steps["dropped"].values()), steps["train"] + steps["val"]) == (9, 3, 6)
    reasons = [entry["reason"] for entry in _read("unique/rejects.jsonl")]
    assert reasons[0] == "repeats an earlier row exactly: a.jsonl:1"
    # Rows that differ only in case and whitespace are both kept, on one side.
    for name in ("train", "val"):
        rows_there = [row["messages"][0]["content"].lower() for row in _read(f"unique/{name}.jsonl")]
        assert rows_there.count("ask 0") in (0, 2)


def test_nearly_repeated_rows_are_dropped_when_asked(model: str) -> None:
    text = " ".join(f"word{number}" for number in range(60))
    rows = [{"prompt": text, "completion": "yes"}, {"prompt": f"{text} more", "completion": "yes"}, GOOD]
    assert _run(model, _jsonl("a.jsonl", rows), "--dedupe", "near", length=2000) == 0
    (entry,) = _read("data/processed/rejects.jsonl")
    assert (entry["line"], entry["reason"]) == (2, "nearly repeats an earlier row: a.jsonl:1")


def test_groups_stay_together_and_labels_keep_their_share(model: str) -> None:
    rows = [{**row, "doc": at // 4, "topic": "ab"[at % 10 == 0]} for at, row in enumerate(_rows(200))]
    _jsonl("a.jsonl", rows)
    assert _run(model, "a.jsonl", "--group", "doc", "--val-share", "0.1", "--out", "g") == 0
    docs = {row["prompt"]: row["doc"] for row in rows}
    sides = [{docs[row["messages"][0]["content"]] for row in _read(f"g/{name}.jsonl")} for name in ("train", "val")]
    assert not sides[0] & sides[1]
    assert _run(model, "a.jsonl", "--stratify", "topic", "--val-share", "0.1", "--out", "s") == 0
    assert _card("s")["labels"] == {"train": {"a": 162, "b": 18}, "val": {"a": 18, "b": 2}}
    assert _run(model, "a.jsonl", "--group", "page", "--out", "none") == 1


def test_of_many_labels_some_are_shown(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _run(model, _jsonl("a.jsonl", [{**row, "id": number} for number, row in enumerate(_rows(50))]), "--stratify", "id")
    out = capsys.readouterr().out
    assert out.count("to train on, ") == 20
    assert "and 30 more labels, see data_card.json" in out


def test_turns_that_are_not_learnt_stay_so(model: str) -> None:
    turns = [{"role": role, "content": content} for role, content in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    rows = [{"prompt": turns, "completion": [{"role": "assistant", "content": "d"}]}, GOOD]
    assert _run(model, _jsonl("a.jsonl", rows), "--val-share", "0") == 0
    first, second = _read("data/processed/train.jsonl")
    assert first == rows[0]
    assert list(second) == ["messages"]
    assert "val.jsonl" not in _files()


def test_an_earlier_result_is_replaced_only_when_asked(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _run(model, _jsonl("a.jsonl", _rows(5)))
    before = _files()
    _jsonl("a.jsonl", _rows(9))
    assert _run(model, "a.jsonl") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert _files() == before
    _jsonl("bad.jsonl", ["{"])
    assert _run(model, "bad.jsonl", "--overwrite") == 1
    assert _files() == before
    assert _run(model, "a.jsonl", "--overwrite") == 0
    assert _card()["steps"]["read"] == 9


def test_rows_of_a_persons_own_are_never_replaced(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = Path(_jsonl("data/processed/train.jsonl", _rows(5)))
    before = own.read_bytes()
    assert _run(model, _jsonl("a.jsonl", _rows(9)), "--overwrite") == 2
    assert "this command did not write it" in capsys.readouterr().err
    assert own.read_bytes() == before


def test_what_is_to_be_replaced_is_not_read(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _run(model, _jsonl("a.jsonl", _rows(40)))
    before = _files()
    assert _run(model, "data/processed/train.jsonl", "--overwrite") == 1
    assert "is in the output folder" in capsys.readouterr().out
    assert _run(model, "data/processed/*.jsonl", "--overwrite") == 1
    assert _files() == before


def test_a_second_command_into_one_folder_is_refused(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with StagedFolder(Path("data/processed")):
        assert _run(model, _jsonl("a.jsonl", _rows(5))) == 2
    assert "data/processed: is being written by another command" in capsys.readouterr().err


EXPECTED = {
    "answer_first.json": (3, "has turns out of order"),
    "archive.jsonl": (1, "is a zip archive"),
    "column_twice.csv": (1, "has 'prompt' twice in its header"),
    "cut_off.json": (3, "is not valid JSON"),
    "cut_off.jsonl.gz": (20, "the file ends in the middle of its gzip data"),
    "empty.jsonl": (None, "contains no rows"),
    "garbage.parquet": (1, "is not a Parquet file"),
    "latin1.csv": (3, "is not UTF-8"),
    "latin1.jsonl": (2, "is not UTF-8"),
    "lone_surrogate.jsonl": (2, "lone surrogate"),
    "mark_in_the_middle.jsonl": (2, "is not valid JSON"),
    "mixed_formats.jsonl": (2, "is not valid JSON"),
    "nested_too_deep.jsonl": (2, "nested too deep"),
    "no_comma.json": (3, "has no comma between two rows"),
    "nul_bytes.jsonl": (2, "contains NUL bytes"),
    "number_too_long.jsonl": (2, "a number too long"),
    "numbers_for_strings.jsonl": (2, "has prompt that is a number, not text"),
    "old_mac_line_ends.jsonl": (1, "is not valid JSON"),
    "one_array.jsonl": (1, "is a list, not a JSON object"),
    "only_blank_lines.jsonl": (None, "contains no rows"),
    "only_marks_of_direction.jsonl": (2, "has an empty assistant turn"),
    "plain_text.jsonl": (1, "is plain text, without an answer to train on"),
    "pretty_printed.jsonl": (1, "is not valid JSON"),
    "ragged.csv": (3, "has 3 cells, but the header has 2"),
    "tool_turn.jsonl": (2, "tools are not supported"),
    "truncated.jsonl": (2, "is not valid JSON"),
    "unclosed_quote.csv": (3, "has an unclosed quote"),
    "utf16.jsonl": (1, "is UTF-16"),
    "utf16_without_mark.jsonl": (1, "contains NUL bytes"),
    "wrong_roles.jsonl": (2, "has the role 'human'"),
}


def test_every_bad_file_has_an_expectation() -> None:
    assert {path.name for path in BAD_DATA.iterdir()} == set(EXPECTED)


def _expect(capsys: pytest.CaptureFixture[str], name: str, line: int | None, message: str) -> None:
    errors = [item for items in _told(capsys).values() for item in items if item["severity"] == "error"]
    place = name if line is None else f"{name}:{line}"
    assert any(item["where"].endswith(place) and message in item["message"] and item["fix"] for item in errors), errors
    assert not Path("data").exists()


@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.parametrize("also", [(), ("--audit",)], ids=["prepare", "audit"])
def test_each_bad_file_is_named_with_place_and_fix(
    model: str, capsys: pytest.CaptureFixture[str], name: str, also: tuple[str, ...]
) -> None:
    assert _run(model, str(BAD_DATA / name), "--json", *also) == 1
    _expect(capsys, name, *EXPECTED[name])


def test_50_megabytes_on_one_line_are_a_finding(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("long.jsonl").open("w", encoding="utf-8") as file:
        file.write(json.dumps(GOOD) + '\n{"prompt": "' + "x" * 50_000_000 + '", "completion": "a"}\n')
    assert _run(model, "long.jsonl", "--json") == 1
    _expect(capsys, "long.jsonl", 2, "is longer than 32 MB")


def test_parquet_of_other_types_is_a_finding(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": 3, "completion": [1.5, 2.5]}]
    parquet.write_table(pa.Table.from_pylist(rows), "a.parquet")
    assert _run(model, "a.parquet", "--json") == 1
    _expect(capsys, "a.parquet", 1, "has prompt that is a number, not text")


def test_a_folder_loop_is_a_finding(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _jsonl("in/a.jsonl", [GOOD])
    Path("in/loop").symlink_to(".", target_is_directory=True)
    assert _run(model, "in", "--json") == 1
    _expect(capsys, "in/loop", None, "leads back to a folder above it")


def test_a_file_that_cannot_be_read_is_wrong_use(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(_jsonl("a.jsonl", [GOOD]))

    def refuse(_path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(formats, "open_regular", refuse)  # as root every file can be read
    assert _run(model, "a.jsonl", "--json") == 2
    _expect(capsys, "a.jsonl", None, "cannot be read (Permission denied)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no input is named"),
        (("a.jsonl", ""), "no input is named"),
        (("none.jsonl",), "no such file or folder"),
        (("a.jsonl", "--map", "user"), "not ROLE=COLUMN"),
        (("a.jsonl", "--map", "user=a"), "--map needs user and assistant"),
        (("a.jsonl", "--map", "user=a", "assistant=b", "messages=c"), "not both"),
        (("a.jsonl", "--map", "user=a", "assistant=b", "user=c"), "--map names user twice: a and c"),
        (("a.jsonl", "--val-share", "1"), "must be at least 0 and below 1"),
        (("a.jsonl", "--near-threshold", "0"), "--near-threshold 0.0"),
        (("a.jsonl", "--processes", "0"), "at least 1"),
    ],
)
def test_wrong_use_is_one_sentence(
    model: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    _jsonl("a.jsonl", [GOOD])
    assert call(data, [*arguments, "--model", model, "--max-seq-length", "9"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err + captured.out


def test_tokens_that_cannot_be_counted_are_said_and_the_rest_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(Path.cwd() / "hub"))
    config = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
    assert call(data, [_jsonl("a.jsonl", _rows(4)), "--config", str(config), "--json"]) == 0
    (finding,) = _told(capsys)["data.tokens"]
    assert finding["severity"] == "skipped"
    assert "tokens were not counted" in finding["message"]
    assert _card()["tokens"] is None


def test_secrets_are_located_and_never_shown(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, card = "AKIA" + "IOSFODNN7EXAMPLE", "4111 1111 " + "1111 1111"
    rows = [GOOD, {"prompt": f"my key is {key}", "completion": f"and card {card}, mail jane.doe@example.com"}]
    assert _run(model, _jsonl("a.jsonl", rows), length=500) == 0
    out = capsys.readouterr().out + "".join(map(str, _files()["data_card.md"].splitlines()))
    for secret in (key, card, "jane.doe@example.com"):
        assert secret not in out
    assert "1 likely secret (AWS Access Key): a.jsonl:2 AKIA…" in out
    assert _card()["likely_secrets"] == {"AWS Access Key": 1, "card number": 1, "e-mail address": 1}


def test_rows_that_are_cut_are_said_or_left_out(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _jsonl("a.jsonl", [{"prompt": "a", "completion": "b" * 200}, *_rows(3)])
    assert _run(model, "a.jsonl", "--out", "all") == 0
    assert "a.jsonl:1: the row exceeds 100 tokens" in capsys.readouterr().out
    assert _run(model, "a.jsonl", "--long-rows", "drop", "--on-bad-row", "drop", "--out", "short") == 0
    assert _card("short")["steps"]["dropped"] == {"is longer than 100 tokens": 1}


ITEMS = st.one_of(
    st.integers(0, 6).map(lambda number: {"prompt": f"ask {number}", "completion": f"tell {number}"}),
    st.sampled_from(["{", "[]", '"a"', "null", '{"prompt": 3}', '{"text": "a"}']),
    st.just({"prompt": "x" * 120, "completion": "beyond"}),
    st.just({"prompt": "x", "completion": "y" * 120}),
)


@settings(max_examples=25)
@given(
    st.lists(st.lists(ITEMS, max_size=12), min_size=1, max_size=3),
    st.tuples(
        st.sampled_from([(), ("--dedupe", "exact")]),
        st.sampled_from([(), ("--long-rows", "drop")]),
        st.sampled_from([(), ("--val-share", "0"), ("--val-share", "0.3")]),
    ),
)
def test_the_counts_add_up(
    model: str,
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[Any]],
    options: tuple[tuple[str, ...], ...],
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    names = [_jsonl(str(folder / f"{number}.jsonl"), [*rows, GOOD]) for number, rows in enumerate(files)]
    arguments = [*itertools.chain(*options), "--on-bad-row", "drop", "--out", str(folder / "out")]
    assert _run(model, *names, *arguments) == 0
    card = _card(str(folder / "out"))
    steps, written = card["steps"], sum(map(len, files)) + len(files)
    assert steps["read"] == written
    assert steps["read"] == sum(steps["dropped"].values()) + steps["train"] + steps["val"]
    for source in card["sources"]:
        assert source["rows"] == source["not_trainable"] + source["repeats"] + source["train"] + source["val"]
    rejects = folder / "out" / "rejects.jsonl"
    rejected = _read(str(rejects)) if rejects.exists() else []
    assert len(rejected) == sum(steps["dropped"].values())
    assert max(Counter((entry["file"], entry["line"]) for entry in rejected).values(), default=1) == 1
    for name in ("train", "val"):
        path = folder / "out" / f"{name}.jsonl"
        assert (len(_read(str(path))) if path.exists() else 0) == steps[name]


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=40), max_size=4), st.sampled_from(["jsonl", "json", "csv", "parquet"]))
def test_any_bytes_end_in_a_verdict(
    model: str, tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], form: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{form}"
    path.write_bytes(b"\n".join(pieces))
    out = tmp_path_factory.getbasetemp() / "any-out"
    code = _run(model, str(path), "--out", str(out), "--overwrite")
    assert code in (0, 1)
    assert out.exists() == (code == 0)
    if code == 0:
        for file in out.iterdir():
            file.unlink()
        out.rmdir()


def _command(model: str, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
    program = [sys.executable, str(PROJECT_ROOT / "scripts" / "kit"), "data", *arguments]
    program += ["--model", model, "--max-seq-length", "100", "--no-cache", "--processes", "1"]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143), (1, 129)])
def test_a_stop_in_the_middle_leaves_nothing(model: str, tmp_path: Path, number: int, code: int) -> None:
    process = _command(model, "-")
    assert process.stdin
    process.stdin.write(b"".join(json.dumps(row).encode() + b"\n" for row in _rows(3000)))
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(f"data/.processed.new-*/{LEDGER}/rows")):
        assert process.poll() is None
        assert time.monotonic() < deadline
    os.kill(process.pid, number)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"nothing was written" in talk
    assert b"Traceback" not in talk
    assert not (tmp_path / "data").exists()


def test_a_pipe_is_read_and_written_to_without_colour(model: str) -> None:
    process = _command(model, "-", "--json", env={**os.environ, "FORCE_COLOR": "1"})
    out, _ = process.communicate(json.dumps(GOOD).encode() + b"\n", timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["schema_version"] == 1
    assert json.loads(out)["written"] == "data/processed"


def test_torch_is_not_imported(model: str) -> None:
    _jsonl("a.jsonl", [GOOD])
    program = (
        f"import sys; sys.path.insert(0, {str(PROJECT_ROOT / 'scripts')!r}); "
        "from kit.cli.command import call; from kit.commands import data; "
        f"call(data, ['a.jsonl', '--model', {model!r}, '--max-seq-length', '50', '--dedupe', 'near']); "
        "sys.exit(bool({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_row_for_each_answer_is_counted_and_never_torn_apart(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    def talk(number: int) -> dict[str, Any]:
        # Every third conversation goes on from the one before it: their first answers are the same row.
        opening = f"hi {number - number % 3}"
        turns = [opening, "hello", *(f"{what} {number}" for what in ("more", "told", "and", "so"))]
        roles = ("user", "assistant")
        return {"messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)]}

    rows = [talk(number) for number in range(30)]
    source = _jsonl("talks.jsonl", [*rows, {"prompt": "a", "completion": "b"}])
    assert _run(model, source, "--split-turns", "--val-share", "0.3", "--dedupe", "exact") == 0
    assert "       +60  rows, one per further answer (--split-turns)" in capsys.readouterr().out
    steps = _card()["steps"]
    assert (steps["read"], steps["added_by_split_turns"]) == (31, 60)
    assert steps["train"] + steps["val"] == 31 + 60 - sum(steps["dropped"].values()) == 10 + 60 + 1
    sides = [_read(f"data/processed/{name}.jsonl") for name in ("train", "val")]
    openings = [{(row.get("prompt") or row["messages"])[0]["content"] for row in side} for side in sides]
    assert not openings[0] & openings[1]
    assert all(len(row["completion"]) == 1 for side in sides for row in side if "completion" in row)


def test_rows_that_are_alike_by_nature_are_not_looked_at_for_likeness(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(model, _jsonl("a.jsonl", _rows(4)), "--split-turns", "--dedupe", "near") == 2
    assert "the rows of one conversation are always near duplicates" in capsys.readouterr().err


@pytest.mark.parametrize("day", ["tomorrow", "2026-02-30", "20261127"])
def test_a_template_date_that_is_no_day_is_refused(model: str, capsys: pytest.CaptureFixture[str], day: str) -> None:
    assert _run(model, _jsonl("a.jsonl", _rows(4)), "--template-date", day) == 2
    assert f"--template-date {day}: not a date" in capsys.readouterr().err
