"""A base that was lent is as it was: whoever borrows it next computes the same numbers, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_variant_learns_the_same_on_a_fresh_base_and_on_one_that_all_others_had(tmp_path: Path) -> None:
    if installed_stack().name != "current":
        pytest.skip("the installed stack is not the current one")
    from bench.measurements import measurements
    from bench.worker import Worker

    def losses(worker: Worker, names: list[str]) -> dict[str, float]:
        found = {name: worker.measure(name) for name in names}
        assert {name: result["failed"] for name, result in found.items() if "failed" in result} == {}
        return {name: result["train_loss"] for name, result in found.items()}

    names = [item.name for item in measurements(()) if item.kind == "speed" and not (item.cuda_only or item.apart)]
    assert len(names) >= 8
    used = Worker("small", "cpu", tmp_path / "used")
    before = losses(used, names)
    assert "failed" not in used.measure("evaluation")
    assert "failed" not in used.measure("generation")
    assert losses(used, names[::-1]) == before
    fresh = Worker("small", "cpu", tmp_path / "fresh")
    assert losses(fresh, names[-2:]) == {name: before[name] for name in names[-2:]}


@pytest.mark.slow
def test_a_first_run_needs_no_base_that_an_earlier_measurement_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    from bench import commands
    from bench.worker import Worker

    folder = tmp_path / "base"
    monkeypatch.setattr(commands, "first_run", lambda *_: {"there": (folder / "model.safetensors.index.json").exists()})
    assert Worker("small", "cpu", folder).measure("first run") == {"there": True}


@pytest.mark.slow
def test_what_fails_is_a_result_and_the_base_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    from bench import steps
    from bench.worker import Worker

    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    worker = Worker("small", "cpu", tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(steps, "build_kit", refuse)
        assert worker.measure("speed/full/kit defaults") == {"failed": "out of memory", "final": True}
    assert worker.measure("speed/full/kit defaults")["tokens_per_second"] > 0
    assert worker.measure("speed/full/nothing of this name")["failed"].startswith("StopIteration")
