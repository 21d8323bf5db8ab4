"""Hugging Face datasets, loaded for real from folders on this disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from kit.intake.formats import Stream
from kit.intake.sources import find_sources

datasets: Any = pytest.importorskip("datasets", reason="needs the libraries: make setup")

pytestmark = pytest.mark.slow  # importing the library takes seconds

ROWS = [{"question": f"ask {number}", "answer": f"tell {number}"} for number in range(20)]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def _read(name: str, **more: Any) -> tuple[list[Any], Stream]:
    (source,), findings = find_sources([name])
    assert findings == []
    stream = Stream(source, **more)
    return [item[1] for item in stream], stream  # type: ignore[index]


def _repository(folder: str, **splits: list[dict[str, Any]]) -> None:
    Path(folder).mkdir()
    for name, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        Path(folder, f"{name}.jsonl").write_text(text, encoding="utf-8")


def test_a_datasets_folder_is_streamed_by_split() -> None:
    _repository("repository", train=ROWS, test=ROWS[:3])
    rows, stream = _read("hf:./repository")
    assert (rows, stream.rows, stream.broken) == (ROWS, 20, None)
    assert len(stream.sha256) == 64
    assert _read("hf:repository", split="test")[0] == ROWS[:3]


def test_what_save_to_disk_wrote_is_read_by_its_folder() -> None:
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk("one")
    datasets.DatasetDict({"train": saved, "test": saved.select(range(3))}).save_to_disk("both")
    assert _read("one")[0] == ROWS
    assert _read("both")[0] == ROWS
    assert _read("hf:both", split="test")[0] == ROWS[:3]


def test_a_column_that_python_cannot_hold_is_left_out_and_mixed_types_are_read_as_written() -> None:
    Path("times").mkdir()
    times = pa.array([2**62, 1]).cast(pa.timestamp("us"))
    table = pa.table({"question": ["a", "b"], "answer": ["c", "d"], "time": times})
    parquet.write_table(table, "times/train.parquet")
    datasets.Dataset(table).save_to_disk("saved")
    for name in ("hf:./times", "saved"):
        rows, stream = _read(name)
        assert stream.broken is None
        assert [(row["question"], row["answer"]) for row in rows] == [("a", "c"), ("b", "d")]
    mixed = [{"question": "a", "answer": "b", "more": more} for more in ("c", [1], {"d": None})]
    _repository("mixed", train=mixed)
    features = datasets.Features(
        question=datasets.Value("string"), answer=datasets.Value("string"), more=datasets.Json()
    )
    datasets.Dataset.from_list(mixed, features=features).save_to_disk("mixed-saved")
    assert _read("mixed-saved")[0] == mixed
    assert [row["answer"] for row in _read("hf:./mixed")[0]] == ["b", "b", "b"]


@pytest.mark.parametrize(
    ("name", "split", "words"),
    [("hf:both", "validation", "has no split 'validation'"), ("hf:repository", "nope", "cannot be loaded")],
)
def test_a_split_that_is_not_there_is_named(name: str, split: str, words: str) -> None:
    _repository("repository", train=ROWS)
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk("both")
    rows, stream = _read(name, split=split)
    assert rows == []
    assert words in str(stream.broken)
    assert stream.broken
    assert "split" in stream.broken.fix


def test_a_name_that_cannot_be_had_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    rows, stream = _read("hf:nobody/no-such-dataset", revision="main")
    assert rows == []
    assert stream.broken
    assert "cannot be loaded" in str(stream.broken)
    assert "\n" not in str(stream.broken)
    assert "--revision" in stream.broken.fix


def test_code_in_a_repository_is_not_run() -> None:
    _repository("repository", train=ROWS)
    Path("repository/repository.py").write_text("raise SystemExit('this was run')\n", encoding="utf-8")
    rows, stream = _read("hf:./repository")
    assert rows == ROWS or stream.broken


def test_a_file_that_is_packed_to_nothing_is_not_given_to_the_library() -> None:
    Path("repository").mkdir()
    table = pa.table({"question": ["a"], "answer": ["x" * (20 << 20)]})
    parquet.write_table(table, "repository/train.parquet", compression="zstd")
    rows, stream = _read("hf:./repository")
    assert rows == []
    assert "unpacks to more than 60 times its size" in str(stream.broken)
