"""A ledger keeps whole lines, whatever happens, and knows what need not be measured again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.plan.ledger import Place, Record, append, code_hash, measured_here, newest, read, read_all

PLACE = Place("7b", "NVIDIA H100 80GB HBM3", "580.1", 85_000_000_000, {"torch": "2.11.0"}, "3.12.3", "abc")


def _record(name: str, place: Place = PLACE, date: str = "2026-11-28T01:00:00+00:00", **result: Any) -> Record:
    return Record(name, place, result or {"tokens_per_second": 1.5}, 2.0, date, ["bench/prove.py"], {})


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / PLACE.file_name
    assert path.name == "nvidia-h100-80gb-hbm3.jsonl"
    assert read(path) == []
    records = [_record("base"), _record("speed/full/größer", failed="out of memory", final=True)]
    for record in records:
        append(path, record)
    assert read(path) == records
    assert read_all(path.parent) == records


@pytest.mark.parametrize("cut", [1, 10, 150, -1])
def test_a_line_that_was_cut_short_costs_itself_alone(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, _record("base"))
    whole = path.read_bytes()
    append(path, _record("ceiling"))
    torn = path.read_bytes()[len(whole) :][:cut]
    path.write_bytes(whole + torn)
    kept = [] if cut > 0 else ["ceiling"]  # a line without its end is a line all the same
    assert [record.measurement for record in read(path)] == ["base", *kept]
    append(path, _record("parity"))
    assert [record.measurement for record in read(path)] == ["base", *kept, "parity"]
    assert path.read_bytes().endswith(b"\n")


def test_lines_of_another_kind_are_no_measurements(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('[]\n{"schema_version": 1}\n{"schema_version": 1, "measurement": "x", "place": 3}\nnull\n')
    assert read(path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"device": "NVIDIA H200"},
        {"driver": "590.1"},
        {"versions": {"torch": "2.12.0"}},
        {"python": "3.11.7"},
        {"code": "abd"},
        {"scale": "small"},
        {"memory_bytes": 1},
    ],
)
def test_a_measurement_holds_for_its_device_versions_and_code_alone(change: dict[str, Any]) -> None:
    elsewhere = replace(PLACE, **change)
    assert set(measured_here([_record("base")], PLACE)) == {"base"}
    assert measured_here([_record("base")], elsewhere) == {}


def test_what_failed_is_tried_again_unless_the_device_is_too_small() -> None:
    records = [_record("peer", failed="no network"), _record("speed", failed="out of memory", final=True)]
    assert set(measured_here(records, PLACE)) == {"speed"}


def test_the_newest_counts_and_a_failure_hides_no_figures() -> None:
    first, second = _record("base", tokens_per_second=1.0), _record("base", tokens_per_second=2.0)
    assert newest([first, second]) == {"base": second}
    assert newest([first, _record("base", failed="no network")]) == {"base": first}


def test_the_code_that_counts_changes_the_hash() -> None:
    program, room = PROJECT_ROOT / "scripts/train.py", PROJECT_ROOT / "scripts/kit/plan"
    one, other = code_hash([program]), code_hash([program, room])
    assert one == code_hash([program])
    assert one != other


def test_every_ledger_of_the_project_is_whole() -> None:
    for path in (PROJECT_ROOT / "measurements").glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(read(path)) == len(lines)
        assert {record.place.file_name for record in read(path)} == {path.name}
        assert all(json.loads(line)["schema_version"] == 1 for line in lines)
