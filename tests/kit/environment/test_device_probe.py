"""The child reports every stage, survives every exception in one, and really uses the device."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.environment import device_probe
from kit.environment import probe as environment_probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REFERENCE_PYTHON = PROJECT_ROOT / ".venv-reference" / "bin" / "python"


def raising(exception: BaseException) -> Callable[[], device_probe.Outcome]:
    def work() -> device_probe.Outcome:
        raise exception

    return work


@pytest.mark.parametrize(
    ("work", "outcome", "detail"),
    [
        (lambda: ("fine", {"a": 1}), "ok", "fine"),
        (raising(ImportError("no\nsuch thing")), "failed", "ImportError: no such thing"),
        (raising(SystemExit("bye")), "failed", "SystemExit: bye"),
        (raising(device_probe.Skip("not installed")), "skipped", "not installed"),
    ],
)
def test_a_stage_is_announced_and_reported(
    work: Callable[[], device_probe.Outcome], outcome: str, detail: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = device_probe.Stages()
    assert stages.run("the stage", work) is (outcome == "ok")
    said = [
        json.loads(line.removeprefix(device_probe.STAGE_PREFIX)) for line in capfd.readouterr().err.splitlines() if line
    ]
    assert said[0] == {"name": "the stage", "outcome": "started"}
    assert said[1] == stages.done[0]
    assert (said[1]["outcome"], said[1]["detail"]) == (outcome, detail)


class Dll:
    """Stands in for ctypes.CDLL."""

    def __init__(self, name: str) -> None:
        self._name = name


class StandIn:
    """Stands in for bitsandbytes' mock, which has every attribute, as a function that raises."""

    def __init__(self, error_msg: str) -> None:
        self.error_msg = error_msg

    def __getattr__(self, name: str) -> Any:
        return lambda: pytest.fail(f"{name} was called")


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        (Dll("/site/bitsandbytes/libbitsandbytes_cuda121.so"), "libbitsandbytes_cuda121.so"),
        (SimpleNamespace(_lib=Dll("/site/bitsandbytes/libbitsandbytes_cpu.so")), "libbitsandbytes_cpu.so"),
        (StandIn("libcudart.so.12: cannot open\nmore"), "none: libcudart.so.12: cannot open"),
        (None, "none: no library could be loaded"),
    ],
)
def test_the_library_bitsandbytes_really_loaded_is_named(
    monkeypatch: pytest.MonkeyPatch, library: object, expected: str
) -> None:
    module = ModuleType("bitsandbytes.cextension")
    module.lib = library  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes.cextension", module)
    assert device_probe.native_library() == expected


def test_a_package_that_is_optional_and_not_installed_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_probe.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(device_probe.Skip, match="not installed"):
        device_probe.import_package("flash_attn")


def test_flash_attention_4_alone_is_not_taken_for_flash_attn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(device_probe.Skip, match="not installed"):
        device_probe.import_package("flash_attn")


@pytest.mark.slow
@pytest.mark.parametrize("four_bit", [True, False])
def test_a_train_step_takes_the_loss_down(four_bit: bool) -> None:
    device_work = pytest.importorskip("kit.environment.device_work", reason="torch is not installed")
    pytest.importorskip("bitsandbytes", minversion="0.50", reason="this bitsandbytes has no 4-bit on a CPU")
    _, facts = device_work.train_step("cpu", four_bit=four_bit)
    assert facts["trained_in_4bit"] is four_bit
    assert (device_work.NF4_ERROR_BOUNDS[0] < facts["nf4_error"] < device_work.NF4_ERROR_BOUNDS[1]) is four_bit


@pytest.mark.slow
def test_a_device_that_leaks_the_future_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    device_work = pytest.importorskip("kit.environment.device_work", reason="torch is not installed")
    device_work.causal_attention("cpu")
    right = device_work.functional.scaled_dot_product_attention

    def leaking(query: Any, key: Any, value: Any, *, is_causal: bool) -> Any:
        return right(query, key, value, is_causal=not is_causal)

    monkeypatch.setattr(device_work.functional, "scaled_dot_product_attention", leaking)
    with pytest.raises(device_work.WrongResultError, match="#195910"):
        device_work.causal_attention("cpu")


@pytest.mark.slow
def test_a_device_that_dequantises_wrongly_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    device_work = pytest.importorskip("kit.environment.device_work", reason="torch is not installed")
    bitsandbytes = pytest.importorskip("bitsandbytes", minversion="0.50", reason="this one has no 4-bit on a CPU")
    right = bitsandbytes.functional.dequantize_4bit
    monkeypatch.setattr(bitsandbytes.functional, "dequantize_4bit", lambda *args: 1.3 * right(*args))
    with pytest.raises(device_work.WrongResultError, match="NF4 weights"):
        device_work.train_step("cpu", four_bit=True)


@pytest.mark.slow
def test_the_products_are_right_on_a_cpu_and_nan_is_no_success() -> None:
    device_work = pytest.importorskip("kit.environment.device_work", reason="torch is not installed")
    device_work.bf16_matmul("cpu")
    device_work.transposed_matmul("cpu")
    with pytest.raises(device_work.WrongResultError, match="differs by nan"):
        device_work.require(float("nan"), 1.0, "nothing")


@pytest.mark.slow
def test_the_real_child_trains_a_step_on_this_stack() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    probe = environment_probe.work_device("cpu")
    assert (probe.outcome, probe.detail) == ("finished", "")
    assert [stage for stage in probe.stages if stage.outcome == "failed"] == []
    assert probe.fact("trained_in_4bit") is (probe.fact("bitsandbytes_library") is not None)
    assert "in one step" in next(stage.detail for stage in probe.stages if stage.name == "train step")


@pytest.mark.stacks
def test_the_real_child_trains_a_step_on_the_reference_stack_without_four_bit() -> None:
    if not REFERENCE_PYTHON.exists():
        pytest.skip("there is no .venv-reference: make setup STACK=reference")
    probe = environment_probe.work_device(
        command=(str(REFERENCE_PYTHON), str(environment_probe.DEVICE_PROBE), "--device", "cpu")
    )
    assert (probe.outcome, probe.detail) == ("finished", "")
    assert [stage for stage in probe.stages if stage.outcome == "failed"] == []
    assert probe.fact("trained_in_4bit") is False


@pytest.mark.slow
def test_the_child_prints_one_json_object_and_nothing_else() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    done = subprocess.run(
        [sys.executable, str(environment_probe.DEVICE_PROBE), "--device", "cpu"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["schema_version"] == device_probe.SCHEMA_VERSION


@pytest.mark.slow
def test_an_orphaned_child_ends_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(environment_probe.DEVICE_PROBE), "--at-most", "1"], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGALRM
