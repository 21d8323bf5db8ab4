"""Row lengths come from the receipt, or from the data while it is still the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kit.files.digest import file_sha256
from kit.report.lengths import lengths_of
from kit.run_directory.history import read_run
from written_run import RESOLVED, TRAIN, write_run


def test_a_recorded_histogram_is_taken_as_it_is(tmp_path: Path) -> None:
    entry = {"path": "t.jsonl", "length_histogram": {"edges": [0, 10, 20], "counts": [3, 4]}, "truncated_rows": 2}
    found = lengths_of(read_run(write_run(tmp_path / "run", data=[entry])))
    assert (found.edges, found.counts, found.truncated) == ((0.0, 10.0, 20.0), (3.0, 4.0), 2)


@pytest.mark.parametrize(
    "histogram",
    [[], {}, {"edges": [1], "counts": [1]}, {"edges": [2, 1], "counts": [1]}, {"edges": "ab", "counts": None}],
)
def test_a_histogram_that_is_none_is_not_believed(tmp_path: Path, histogram: Any) -> None:
    entry = {"path": "gone.jsonl", "length_histogram": histogram}
    found = lengths_of(read_run(write_run(tmp_path / "run", data=[entry])))
    assert not found
    assert found.missing_because == "gone.jsonl no longer exists"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return shutil.copy(TRAIN, tmp_path / "rows.jsonl")


def run_on(tmp_path: Path, base: Path, rows: Path, sha256: str, limit: int = 64) -> Path:
    config = RESOLVED.settings.as_mapping()
    config["model"]["model_name_or_path"] = str(base)
    config["training"]["max_seq_length"] = limit
    return write_run(tmp_path / "run", config=config, data=[{"path": str(rows), "sha256": sha256}])


def test_without_one_the_data_file_is_tokenised_again(tmp_path: Path, tiny_base: Path, rows: Path) -> None:
    found = lengths_of(read_run(run_on(tmp_path, tiny_base, rows, file_sha256(rows), limit=54)))
    assert sum(found.counts) == 4000
    assert found.truncated
    assert found.edges[-1] > 54  # what was cut is counted at its whole length


def test_a_data_file_that_has_changed_is_left_alone(tmp_path: Path, tiny_base: Path, rows: Path) -> None:
    folder = run_on(tmp_path, tiny_base, rows, "0" * 64)
    assert lengths_of(read_run(folder)).missing_because.endswith("has changed since the run")


def test_a_base_that_is_gone_is_a_reason_and_no_crash(tmp_path: Path, rows: Path) -> None:
    folder = run_on(tmp_path, tmp_path / "no-base", rows, file_sha256(rows))
    assert "cannot be tokenised again" in lengths_of(read_run(folder)).missing_because
