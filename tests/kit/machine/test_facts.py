"""A machine's facts survive a recording; anything else is refused with place and reason."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.machine.facts import Apple, Gpu, Machine, Nvidia, from_mapping, read
from kit.machine.recorded import to_json

if TYPE_CHECKING:
    from pathlib import Path

FIXTURES = PROJECT_ROOT / "tests" / "fixtures" / "machines"
GPU = Gpu(0, "NVIDIA H100 80GB HBM3", 81559 * 1024**2, 4 * 1024**2, (9, 0))
MACHINE = Machine(
    system="Linux",
    arch="x86_64",
    python_version="3.11.9",
    cpu_model="AMD EPYC",
    cpu_count=2,
    memory_total_bytes=64 * 10**9,
    memory_available_bytes=60 * 10**9,
    disk_free_bytes=None,
    in_container=True,
    nvidia=Nvidia((GPU, replace(GPU, index=1)), "550.127.08", (12, 4), "nvml", "", "1", (1,)),
    apple=Apple("Apple M4", (26, 1), is_apple_silicon=True, is_rosetta=False, unified_memory_bytes=None),
    mps_available=False,
)


def test_facts_survive_a_round_trip() -> None:
    assert from_mapping(json.loads(to_json(MACHINE))) == MACHINE


def test_facts_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text(to_json(MACHINE), encoding="utf-8")
    assert read(path) == MACHINE


def test_every_fixture_is_written_as_recorded() -> None:
    for path in FIXTURES.rglob("*.json"):
        assert to_json(read(path)) == path.read_text(encoding="utf-8"), path.name


def test_visible_gpus_are_all_where_nothing_restricts_them() -> None:
    nvidia = replace(MACHINE.nvidia, cuda_visible_devices=None, visible=None)
    assert [gpu.index for gpu in nvidia.visible_gpus] == [0, 1]


def test_visible_gpus_follow_the_order_of_the_variable() -> None:
    nvidia = replace(MACHINE.nvidia, visible=(1, 0))
    assert [gpu.index for gpu in nvidia.visible_gpus] == [1, 0]


def _broken(**changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(to_json(MACHINE))
    record["machine"].update(changes)
    return record


def _without(name: str) -> dict[str, Any]:
    record = _broken()
    del record["machine"][name]
    return record


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "not a machine recorded"),
        ({}, "not a machine recorded"),
        ({"schema_version": 2, "machine": {}}, "not a machine recorded"),
        ({"schema_version": 1, "machine": []}, r"machine is \[\]; a JSON object is needed"),
        (_without("cpu_count"), r"machine\.cpu_count is missing"),
        (_broken(cpus=2), r"machine\.cpus is not a known fact"),
        (_broken(cpu_count="2"), r'machine\.cpu_count is "2"; a non-negative integer'),
        (_broken(cpu_count=True), r"machine\.cpu_count is true"),
        (_broken(cpu_count=-1), r"machine\.cpu_count is -1"),
        (_broken(memory_total_bytes=1.5), r"machine\.memory_total_bytes is 1\.5"),
        (_broken(cpu_count=10**400), r"machine\.cpu_count is 1000"),
        (_broken(system=None), r"machine\.system is null; printable text is needed"),
        (_broken(system="\x1b[31m"), r"machine\.system is .*; printable text is needed"),
        (_broken(in_container="yes"), r'machine\.in_container is "yes"; true or false is needed'),
        (_broken(nvidia=None), r"machine\.nvidia is null"),
        (_broken(nvidia={"gpus": {}}), r"machine\.nvidia\.gpus is \{\}; a list is needed"),
        (_broken(nvidia={"gpus": [{"index": 0}]}), r"machine\.nvidia\.gpus\[0\]\.name is missing"),
        (_broken(nvidia={"cuda_driver_version": [12]}), r"cuda_driver_version is \[12\]"),
        (_broken(nvidia={"visible": [0]}), r"machine\.nvidia\.visible names a GPU"),
        (_broken(apple={"chip": "Apple M4"}), r"machine\.apple\.macos_version is missing"),
    ],
)
def test_what_is_no_recording_is_refused_by_place(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_mapping(record)
