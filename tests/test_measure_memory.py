"""`make bench-memory`: what it says of cases the device has no room for. Whether the figures hold: kit/budget."""

from __future__ import annotations

import json
import weakref
from typing import TYPE_CHECKING

import pytest

import measure_memory
from kit.budget.cases import Case, cases
from kit.budget.comparison import Compared, refused

if TYPE_CHECKING:
    from collections.abc import Sequence

pytest.importorskip("torch", reason="needs the libraries: make setup")
NEEDED = refused(cases("current", small=True)[0], None).needed_bytes
GPU_WORDS = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 39.49 GiB"


class Activations:
    """Stands for the tensors a failed case leaves behind."""


class Device:
    """A device without room for some of the cases, that sees whether what they left is let go."""

    def __init__(self, *refuses: int) -> None:
        self.refuses = refuses
        self.measured: list[str] = []
        self.left: list[weakref.ref[Activations]] = []

    def compare(self, case: Case) -> Compared:
        """Measure exactly what is planned, or refuse."""
        assert [reference for reference in self.left if reference() is not None] == []
        self.measured.append(case.name)
        activations = Activations()
        if len(self.measured) in self.refuses:
            self.left.append(weakref.ref(activations))
            raise RuntimeError(GPU_WORDS)
        return Compared(case.name, (1, 1), (1, 1), (1, 1), (1, 1), "loss")


def run(
    monkeypatch: pytest.MonkeyPatch, device: Device, arguments: Sequence[str] = (), *, room: int | None = NEEDED // 2
) -> int:
    monkeypatch.setattr(measure_memory, "compare", device.compare)
    monkeypatch.setattr(measure_memory, "_free_bytes", lambda: room)
    return measure_memory.main(["--small", "--only", "1", "2", "3", *arguments])


def test_a_case_without_room_costs_no_other_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Device(2)
    assert run(monkeypatch, device) == 0
    printed = capsys.readouterr().out
    assert len(device.measured) == 3
    assert "does not fit here, as planned: takes " in printed
    assert device.measured[1] in printed
    assert "all within; 1 without room here" in printed


def test_a_refusal_the_plan_did_not_foretell_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, Device(2), ["--json"], room=2 * NEEDED) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["verdict"] == "failed"
    assert [case["within"] for case in shown["cases"]] == [True, False, True]
    assert shown["cases"][1]["room_bytes"] == 2 * NEEDED


def test_a_refusal_is_a_fault_where_nobody_knows_what_was_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, Device(3), room=None) == 1
    assert "1 of 3 cases are further off" in capsys.readouterr().out


def test_a_device_without_room_for_any_has_not_passed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, Device(1, 2, 3)) == 1
    assert "nothing measured: no case has room here" in capsys.readouterr().out


def test_what_is_no_lack_of_memory_is_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: Case) -> Compared:
        raise RuntimeError(f"illegal memory access in {case.name}")

    monkeypatch.setattr(measure_memory, "compare", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        measure_memory.main(["--small", "--only", "1"])


def test_making_the_model_is_part_of_what_is_needed() -> None:
    """Mistral-7B stands in 16 bits on the GPU before its layers are quantised there: 14.5 GB."""
    from kit.budget.cases import gpu_cases

    smallest = min(refused(case, None).needed_bytes for case in gpu_cases("current"))
    assert smallest == pytest.approx(14.48e9, rel=0.001)
