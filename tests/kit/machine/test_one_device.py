"""A process sees only the chosen GPU, whatever the variables name and however CUDA numbers GPUs."""

from __future__ import annotations

import os
import re
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.cli.interpreter import PROJECT_ROOT
from kit.machine import nvidia as machine_nvidia
from kit.machine.cuda_order import chosen_of
from kit.machine.facts import Gpu, Nvidia
from kit.machine.nvidia_rules import nvidia_findings
from kit.machine.nvml import Found, Report
from kit.machine.one_device import ALLOCATOR, judged_gpu_name, use_judged_device
from kit.machine.recorded import rebuild

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPTS = PROJECT_ROOT / "scripts"
ORDER, VISIBLE = "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"
A100, T4 = ("NVIDIA A100-SXM4-80GB", 80 * 2**30, (8, 0)), ("Tesla T4", 15 * 2**30, (7, 5))


def uuid(number: int, kind: str = "GPU") -> str:
    return f"{kind}-{number:08x}-0000-4000-8000-000000000000"


def found(*kinds: tuple[str, int, tuple[int, int]]) -> list[Found]:
    """GPUs in the driver's order, each with its UUID."""
    return [
        Found(Gpu(index, name, size, 0, capability), uuid(index))
        for index, (name, size, capability) in enumerate(kinds)
    ]


def ask(monkeypatch: pytest.MonkeyPatch, gpus: Sequence[Found], **variables: str) -> None:
    """Let the driver list these GPUs, under these variables."""
    monkeypatch.setattr(machine_nvidia, "ask_nvml", lambda: Report(Nvidia(source="nvml"), tuple(gpus)))
    for name in (ORDER, VISIBLE, *ALLOCATOR):
        monkeypatch.setenv(name, variables.get(name, ""))  # so that monkeypatch restores it
        if name not in variables:
            monkeypatch.delenv(name)


def judged() -> tuple[int, str] | None:
    gpu = chosen_of(machine_nvidia.probe_nvidia())
    return (gpu.index, gpu.name) if gpu else None


@pytest.mark.parametrize(
    ("order", "visible", "index"),
    [
        (None, None, 1),
        (None, "0", 1),
        (None, "1", 0),
        (None, "0,1", 1),
        ("FASTEST_FIRST", "1,0", 0),
        ("PCI_BUS_ID", None, 0),
        ("PCI_BUS_ID", "1", 1),
        (None, uuid(0), 0),
        (None, uuid(0)[:12] + "," + uuid(1), 0),
    ],
)
def test_of_a_t4_and_an_a100_the_one_that_cuda_counts_first_is_judged_and_used(
    monkeypatch: pytest.MonkeyPatch, order: str | None, visible: str | None, index: int
) -> None:
    variables = {name: value for name, value in ((ORDER, order), (VISIBLE, visible)) if value is not None}
    ask(monkeypatch, found(T4, A100), **variables)
    before = judged()
    assert before is not None
    assert before[0] == index
    use_judged_device()
    assert os.environ[VISIBLE] == uuid(index)
    assert judged() == before


@st.composite
def machines(draw: st.DrawFn) -> list[Found]:
    """Up to four GPUs of two kinds, whole or cut, with and without names."""
    named = draw(st.booleans())
    gpus: list[Found] = []
    for index in range(draw(st.integers(1, 4))):
        name, size, capability = draw(st.sampled_from([A100, T4]))
        for piece in range(slices := draw(st.sampled_from([0, 0, 0, 2])) or 1):
            gpu = Gpu(index, name, size, 0, capability)
            if slices > 1 and named:
                gpu = Gpu(index, f"{name} MIG 3g.40gb", size // 2, 0, capability, mig_enabled=True, is_mig_slice=True)
            gpus.append(Found(gpu, uuid(index * 8 + piece, "MIG" if gpu.is_mig_slice else "GPU") if named else ""))
            if not gpu.is_mig_slice:
                break
    return gpus


@given(data=st.data(), gpus=machines(), order=st.sampled_from([None, "PCI_BUS_ID", "FASTEST_FIRST"]))
def test_what_is_left_is_what_was_judged_and_a_fresh_process_judges_the_same(
    data: st.DataObject, gpus: list[Found], order: str | None
) -> None:
    names = [item.uuid for item in gpus if item.uuid] + [str(number) for number in range(5)] + ["-1", "", "MIG-"]
    entries = data.draw(st.one_of(st.none(), st.lists(st.sampled_from(names), min_size=1, max_size=3)))
    variables = {} if entries is None else {VISIBLE: ",".join(entries)}
    with pytest.MonkeyPatch.context() as patch:
        ask(patch, gpus, **variables, **({ORDER: order} if order else {}))
        before = judged()
        use_judged_device()
        after = machine_nvidia.probe_nvidia()
        assert judged() == before
        if before is not None:
            assert len(after.visible_gpus) == 1
            assert "," not in os.environ[VISIBLE]


def test_a_machines_only_gpu_is_number_0(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in ({}, {VISIBLE: "0"}, {VISIBLE: uuid(0)}):
        ask(monkeypatch, found(A100), **variables)
        use_judged_device()
        assert os.environ[VISIBLE] == judged_gpu_name() == "0"


def test_without_names_the_drivers_number_is_given_with_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, [Found(item.gpu, "") for item in found(T4, A100)], CUDA_VISIBLE_DEVICES="0,1")
    use_judged_device()
    assert (os.environ[ORDER], os.environ[VISIBLE]) == ("PCI_BUS_ID", "1")


def test_where_no_driver_answers_one_gpu_is_left_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables, left in (({}, "0"), ({VISIBLE: "3,4"}, "3"), ({VISIBLE: ""}, "")):
        ask(monkeypatch, [], **variables)
        use_judged_device()
        assert os.environ[VISIBLE] == left


def test_gpus_that_are_hidden_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, found(A100, A100), CUDA_VISIBLE_DEVICES="")
    use_judged_device()
    assert (os.environ[VISIBLE], judged_gpu_name()) == ("", "")


@pytest.mark.parametrize(
    ("stack", "gpus", "variables", "told"),
    [
        ("current", found(A100), {}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
        ("current", found(T4, A100), {}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
        ("current", found(A100), {"PYTORCH_CUDA_ALLOC_CONF": ""}, {"PYTORCH_CUDA_ALLOC_CONF": ""}),
        ("current", found(A100), {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, {}),
        ("current", found(A100), {VISIBLE: ""}, {}),
        ("current", [], {}, {}),
        ("reference", found(A100), {}, {}),
        ("damaged", found(A100), {}, {}),
    ],
)
def test_the_allocator_grows_on_a_gpu_unless_it_was_told_anything(
    monkeypatch: pytest.MonkeyPatch, stack: str, gpus: list[Found], variables: dict[str, str], told: dict[str, str]
) -> None:
    versions = {"current": "5.23.0", "reference": "4.36.0", "damaged": "?"}
    ask(monkeypatch, gpus, **variables)
    monkeypatch.setattr(metadata, "version", lambda _: versions[stack])
    use_judged_device()
    expected = {name: value for name, value in variables.items() if name in ALLOCATOR} | told
    assert {name: os.environ[name] for name in ALLOCATOR if name in os.environ} == expected


def test_no_whole_uuid_gets_into_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, found(A100, A100))
    use_judged_device()
    nvidia = machine_nvidia.probe_nvidia()
    assert (nvidia.cuda_visible_devices, nvidia.visible) == ("GPU-…", (0,))


@pytest.mark.parametrize(
    ("visible", "taken"), [("1", "CUDA_VISIBLE_DEVICES=1 is probably Tesla T4"), (None, "the first is probably")]
)
def test_a_number_among_unlike_gpus_is_said_to_be_a_guess_with_the_sure_way(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, taken: str
) -> None:
    ask(monkeypatch, found(T4, A100), **({VISIBLE: visible} if visible else {}))
    nvidia = machine_nvidia.probe_nvidia()
    gpu = chosen_of(nvidia)
    assert gpu is not None
    (mixed,) = [item for item in nvidia_findings(nvidia, gpu, "cuda") if item.id == "gpu.mixed"]
    assert mixed.severity == "warning"
    assert taken in mixed.message
    assert f"CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={gpu.index} " in mixed.fix


@pytest.mark.parametrize("variables", [{VISIBLE: uuid(1)}, {VISIBLE: "1", ORDER: "PCI_BUS_ID"}])
def test_a_name_or_the_drivers_order_is_no_guess(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    ask(monkeypatch, found(T4, A100), **variables)
    nvidia = machine_nvidia.probe_nvidia()
    assert not [item for item in nvidia_findings(nvidia, chosen_of(nvidia), "cuda") if item.id == "gpu.mixed"]


def test_every_way_to_another_of_unlike_gpus_is_a_sure_one(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Gpu(1, *A100[:2], 70 * 2**30, A100[2])
    ask(monkeypatch, [found(T4)[0], Found(busy, uuid(1))])
    nvidia = machine_nvidia.probe_nvidia()
    fixes = [item.fix for item in nvidia_findings(nvidia, chosen_of(nvidia), "cuda") if "CUDA_VISIBLE" in item.fix]
    assert len(fixes) == 3
    assert all("CUDA_DEVICE_ORDER=PCI_BUS_ID" in fix for fix in fixes)


def test_facts_recorded_before_the_order_was_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    del monkeypatch
    gpus = [
        {"index": number, "name": name, "memory_total_bytes": size} for number, (name, size, _) in enumerate((T4, A100))
    ]
    gpu = chosen_of(rebuild(Nvidia, {"gpus": gpus}, "machine.nvidia"))
    assert gpu is not None
    assert (gpu.index, gpu.memory_free_bytes) == (1, 80 * 2**30)


# Programs that open a device, and those that only ever run inside one of them or on the CPU.
_OPENS = re.compile(
    r"^[^#\n]*(?:import load_base_model|torch\.cuda\.is_available\(\)|import native_library)", re.MULTILINE
)
_BEGUN_BY = {
    "scripts/kit/use/merge_check.py": "scripts/kit/use/loading.py",
    "bench/loading.py": "bench/prove.py",
    "bench/programs/unsloth_peer.py": "bench/prove.py",
    "bench/steps.py": "bench/prove.py",
    "bench/memory_cases.py": "bench/prove.py",
    "scripts/kit/parity/measure.py": "scripts/kit/commands/parity.py",
    "tests/torture/fuzz_bases.py": "on the CPU",
    "scripts/kit/commands/demo.py": "on the CPU",
}


def test_every_program_that_opens_a_device_asks_which_first_and_nobody_else_sets_the_variable() -> None:
    folders = ("scripts", "bench", "tools", "tests/torture")
    paths = [path for folder in folders for path in (PROJECT_ROOT / folder).rglob("*.py")]
    sources = {path.relative_to(PROJECT_ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    of_training = ("scripts/kit/modeling/", "scripts/kit/train/")
    opening = {name for name, text in sources.items() if _OPENS.search(text) and not name.startswith(of_training)}
    judging = "scripts/kit/machine/one_device.py"
    asking = {name for name, text in sources.items() if "use_judged_device()" in text} - {judging}
    assert opening - set(_BEGUN_BY) <= asking
    assert {name for name in _BEGUN_BY.values() if name.endswith(".py")} <= asking
    setting = re.compile(r"environ[^\n]*CUDA_VISIBLE_DEVICES[\"'][^\n]*[,=]")
    assert [name for name, text in sources.items() if setting.search(text)] == []
