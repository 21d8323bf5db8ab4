"""The probe against stand-ins for the machine's tools: working, broken, hanging, printing nonsense, missing."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.data.pool import processes_for
from kit.machine import nvidia as machine_nvidia
from kit.machine import nvidia_smi as machine_nvidia_smi
from kit.machine import nvml as machine_nvml
from kit.machine import probe as machine_probe
from kit.machine.tools import ask
from tools.gate.at_once import workers

MIB = 1024**2
# A kill that has to wait for a stuck tool is bounded; this only tells "bounded" from "for ever".
GENEROUS_S = 20.0

H100_ROW = "0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 4, 550.127.08, 9.0, Disabled"
HEADER = "| NVIDIA-SMI 550.127.08    Driver Version: 550.127.08    CUDA Version: 12.4     |"


class Tools:
    """A folder of stand-in executables, alone on PATH but for the shell's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)

    def nvidia_smi(self, rows: str = H100_ROW, header: str = HEADER, listing: str = "") -> None:
        self.put(
            "nvidia-smi",
            f"case \"$1\" in\n--query-gpu=*) cat <<'END'\n{rows}\nEND\n;;\n-L) cat <<'END'\n{listing}\nEND\n;;\n"
            f"*) cat <<'END'\n{header}\nEND\n;;\nesac",
        )


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "cat", "sleep"):
        (folder / name).symlink_to(
            next(Path(place, name) for place in ("/bin", "/usr/bin") if Path(place, name).exists())
        )
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    # None makes the import fail, whatever is installed here.
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(machine_nvidia, "PROC_DRIVER", tmp_path / "absent")
    monkeypatch.setattr(machine_nvidia, "PCI_DEVICES", tmp_path / "absent")
    return Tools(folder)


def test_tool_that_is_absent_is_said_to_be(tools: Tools) -> None:
    del tools
    answer = ask(["nvidia-smi"], 5)
    assert (answer.found, answer.problem) == (False, "nvidia-smi is not on PATH")


def test_tool_that_hangs_with_a_child_is_given_up_on(tools: Tools) -> None:
    tools.put("hang", "sleep 300 &\nsleep 300")
    started = time.monotonic()
    answer = ask(["hang"], 0.2)
    assert answer.timed_out
    assert answer.problem == "hang did not answer within 0.2 s"
    assert time.monotonic() - started < GENEROUS_S


def test_tool_that_cannot_be_started_is_a_problem(tools: Tools) -> None:
    path = tools.folder / "binary"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    assert "binary cannot be started" in ask(["binary"], 5).problem


def test_tool_that_fails_is_quoted(tools: Tools) -> None:
    tools.put("fail", "echo 'no driver' >&2; exit 9")
    assert ask(["fail"], 5).problem == "fail failed with exit code 9: no driver"


def test_no_nvidia_at_all_is_no_problem(tools: Tools) -> None:
    del tools
    nvidia = machine_nvidia.probe_nvidia()
    assert (nvidia.gpus, nvidia.source, nvidia.problem) == ((), "none", "")


def test_nvidia_smi_is_read(tools: Tools) -> None:
    tools.nvidia_smi()
    nvidia = machine_nvidia.probe_nvidia()
    (gpu,) = nvidia.gpus
    assert (gpu.name, gpu.memory_total_bytes, gpu.memory_used_bytes) == ("NVIDIA H100 80GB HBM3", 81559 * MIB, 4 * MIB)
    assert gpu.compute_capability == (9, 0)
    assert (nvidia.driver_version, nvidia.cuda_driver_version) == ("550.127.08", (12, 4))
    assert (nvidia.source, nvidia.problem) == ("nvidia-smi", "")


def test_old_nvidia_smi_without_compute_cap_is_asked_again(tools: Tools) -> None:
    tools.put(
        "nvidia-smi",
        'case "$1" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to query.\'; exit 2;;\n'
        "--query-gpu=*) echo '0, GPU-a, Tesla T4, 15109, [N/A], 470.82.01';; esac",
    )
    nvidia = machine_nvidia.probe_nvidia()
    assert nvidia.gpus[0].compute_capability is None
    assert nvidia.gpus[0].memory_used_bytes is None
    assert (nvidia.driver_version, nvidia.cuda_driver_version) == ("470.82.01", None)


def test_escape_sequences_do_not_reach_the_facts(tools: Tools) -> None:
    tools.nvidia_smi(rows=H100_ROW.replace("H100", "\x1b[31mH100"))
    (gpu,) = machine_nvidia.probe_nvidia().gpus
    assert gpu.name == r"NVIDIA \u001b[31mH100 80GB HBM3"


def test_mig_slices_stand_in_the_place_of_their_gpu(tools: Tools) -> None:
    tools.nvidia_smi(
        rows=H100_ROW.replace("Disabled", "Enabled") + "\n" + H100_ROW.replace("0, GPU-aaaa", "1, GPU-bbbb"),
        listing="GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-1111)\n"
        "  MIG 1g.10gb     Device  1: (UUID: MIG-2222)\n"
        "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb)",
    )
    gpus = machine_nvidia.probe_nvidia().gpus
    assert [gpu.name.partition(" MIG ")[2] for gpu in gpus] == ["3g.40gb", "1g.10gb", ""]
    assert [gpu.memory_total_bytes for gpu in gpus[:2]] == [40 * 10**9, 10 * 10**9]
    assert [gpu.is_mig_slice for gpu in gpus] == [True, True, False]


def test_broken_nvidia_smi_is_a_problem(tools: Tools) -> None:
    tools.put("nvidia-smi", "echo 'NVIDIA-SMI has failed because of the driver'; exit 9")
    nvidia = machine_nvidia.probe_nvidia()
    assert nvidia.problem == "nvidia-smi failed with exit code 9: NVIDIA-SMI has failed because of the driver"
    assert nvidia.source == "nvidia-smi"


def test_hanging_nvidia_smi_is_a_problem_and_bounded(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.put("nvidia-smi", "sleep 300")
    monkeypatch.setattr(machine_nvidia_smi, "TIMEOUT_S", 0.2)
    started = time.monotonic()
    assert machine_nvidia.probe_nvidia().problem == "nvidia-smi did not answer within 0.2 s"
    assert time.monotonic() - started < GENEROUS_S


@pytest.mark.parametrize(
    "rows", ["hello", "0, GPU-a", "0, GPU-a, H100, [N/A], 4, 550.1, 9.0, Disabled", "\x00\x1b[31m", "-1,,,,,,,"]
)
def test_nonsense_from_nvidia_smi_is_a_problem(tools: Tools, rows: str) -> None:
    tools.nvidia_smi(rows=rows)
    nvidia = machine_nvidia.probe_nvidia()
    assert nvidia.gpus == ()
    assert "an unexpected line" in nvidia.problem


def test_one_line_of_nonsense_leaves_the_other_gpu(tools: Tools) -> None:
    tools.nvidia_smi(rows=f"{H100_ROW}\nUnable to determine the device handle for GPU 0000:02:00.0")
    nvidia = machine_nvidia.probe_nvidia()
    assert len(nvidia.gpus) == 1
    assert "Unable to determine" in nvidia.problem


@pytest.mark.parametrize(
    ("chosen", "visible"),
    [
        ("0", (0,)),
        ("1,0", (1, 0)),
        ("GPU-bb", (1,)),
        ("", ()),
        ("-1", ()),
        ("0,7,1", (0,)),
        ("1,1", (1,)),
        (" 1 , 0 ", (1, 0)),
    ],
)
def test_cuda_visible_devices_is_resolved_as_cuda_does(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, chosen: str, visible: tuple[int, ...]
) -> None:
    tools.nvidia_smi(rows=H100_ROW + "\n" + H100_ROW.replace("0, GPU-aaaa", "1, GPU-bbbb"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    nvidia = machine_nvidia.probe_nvidia()
    assert (nvidia.cuda_visible_devices, nvidia.visible) == (chosen, visible)


def test_loaded_driver_that_cannot_be_asked_is_a_problem(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del tools
    monkeypatch.setattr(machine_nvidia, "PROC_DRIVER", tmp_path)
    assert "driver is loaded" in machine_nvidia.probe_nvidia().problem


def test_gpu_without_a_driver_is_seen_on_the_bus(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del tools
    device = tmp_path / "pci" / "0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n", encoding="ascii")
    (device / "class").write_text("0x030200\n", encoding="ascii")
    monkeypatch.setattr(machine_nvidia, "PCI_DEVICES", tmp_path / "pci")
    assert "on the PCI bus" in machine_nvidia.probe_nvidia().problem


class NvmlError(Exception):
    def __init__(self, value: int = 999) -> None:
        super().__init__(f"error {value}")
        self.value = value


def fake_nvml(**changes: Any) -> SimpleNamespace:
    """Stand in for nvidia-ml-py on a machine with one H100; a handle is the GPU's number, or a slice's name."""

    def memory(handle: Any, version: int | None = None) -> SimpleNamespace:
        del version
        return SimpleNamespace(total=(9984 if isinstance(handle, str) else 81559) * MIB, used=4 * MIB)

    calls: dict[str, Any] = {
        "NVMLError": NvmlError,
        "NVML_ERROR_LIBRARY_NOT_FOUND": 12,
        "nvmlMemory_v2": 2,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"550.127.08",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 12040,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: (
            "NVIDIA H100 80GB HBM3" + (f" MIG {handle}" if isinstance(handle, str) else "")
        ),
        "nvmlDeviceGetUUID": lambda handle: f"MIG-{handle}" if isinstance(handle, str) else f"GPU-{handle}",
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetCudaComputeCapability": lambda _handle: (9, 0),
        "nvmlDeviceGetMigMode": lambda _handle: [0, 0],
        "nvmlDeviceGetMaxMigDeviceCount": lambda _handle: 7,
    }
    return SimpleNamespace(**{**calls, **changes})


def raising(value: int = 999) -> Any:
    def call(*_: Any, **__: Any) -> Any:
        raise NvmlError(value)

    return call


def use(monkeypatch: pytest.MonkeyPatch, nvml: SimpleNamespace) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]


def test_nvml_is_asked_before_nvidia_smi(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.put("nvidia-smi", "exit 9")
    use(monkeypatch, fake_nvml())
    nvidia = machine_nvidia.probe_nvidia()
    (gpu,) = nvidia.gpus
    assert (nvidia.source, nvidia.driver_version, nvidia.cuda_driver_version) == ("nvml", "550.127.08", (12, 4))
    assert (gpu.memory_total_bytes, gpu.memory_used_bytes, gpu.compute_capability) == (81559 * MIB, 4 * MIB, (9, 0))


def test_nvml_lists_mig_slices_in_the_place_of_their_gpu(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    del tools
    names = {0: "1g.10gb", 3: "1g.10gb"}

    def handle(_parent: Any, number: int) -> str:
        if number not in names:
            raise NvmlError(6)
        return names[number]

    use(
        monkeypatch,
        fake_nvml(nvmlDeviceGetMigMode=lambda _handle: [1, 1], nvmlDeviceGetMigDeviceHandleByIndex=handle),
    )
    gpus = machine_nvidia.probe_nvidia().gpus
    assert [gpu.name for gpu in gpus] == ["NVIDIA H100 80GB HBM3 MIG 1g.10gb"] * 2
    assert {gpu.memory_total_bytes for gpu in gpus} == {9984 * MIB}
    assert all(gpu.is_mig_slice and gpu.compute_capability == (9, 0) for gpu in gpus)


def test_mig_mode_without_slices_leaves_the_gpu_marked(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    del tools
    changes = {"nvmlDeviceGetMigMode": lambda _handle: [1, 1], "nvmlDeviceGetMigDeviceHandleByIndex": raising(6)}
    use(monkeypatch, fake_nvml(**changes))
    (gpu,) = machine_nvidia.probe_nvidia().gpus
    assert (gpu.mig_enabled, gpu.is_mig_slice) == (True, False)


def test_facts_that_nvml_does_not_know_are_none(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    del tools
    unknown = ("nvmlDeviceGetMigMode", "nvmlDeviceGetCudaComputeCapability", "nvmlSystemGetCudaDriverVersion_v2")
    use(monkeypatch, fake_nvml(**{name: raising(3) for name in unknown}))
    nvidia = machine_nvidia.probe_nvidia()
    assert nvidia.cuda_driver_version is None
    assert nvidia.gpus[0].compute_capability is None
    assert not nvidia.gpus[0].mig_enabled


# 80 GiB of an A100: NVML's first form of the call says 912 MB in use, the second 7.8 (nvml-wrapper#57); the driver's
# share is what lies between, by arithmetic.
A100_BYTES, HELD, WITH_THE_DRIVER = 80 * 2**30, 7_800_000, 912_000_000


def test_what_the_driver_keeps_for_itself_is_not_free(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    del tools
    free = A100_BYTES - WITH_THE_DRIVER

    def memory(_handle: Any, version: int | None = None) -> SimpleNamespace:
        return SimpleNamespace(total=A100_BYTES, free=free, used=HELD if version else WITH_THE_DRIVER)

    use(monkeypatch, fake_nvml(nvmlDeviceGetMemoryInfo=memory))
    (gpu,) = machine_nvidia.probe_nvidia().gpus
    assert (gpu.memory_used_bytes, gpu.memory_free_bytes) == (HELD, free)
    assert gpu.memory_reserved_bytes == WITH_THE_DRIVER - HELD


def test_nvidia_smi_tells_what_is_free_as_well(tools: Tools) -> None:
    tools.nvidia_smi(rows=f"{H100_ROW}, 80994")
    (gpu,) = machine_nvidia.probe_nvidia().gpus
    assert (gpu.memory_free_bytes, gpu.memory_reserved_bytes) == (80994 * MIB, (81559 - 4 - 80994) * MIB)


def test_old_bindings_without_the_second_memory_call_still_tell_the_use(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    del tools
    use(monkeypatch, fake_nvml(nvmlDeviceGetMemoryInfo=lambda _handle: SimpleNamespace(total=80 * MIB, used=7 * MIB)))
    assert machine_nvidia.probe_nvidia().gpus[0].memory_used_bytes == 7 * MIB


def test_a_lost_gpu_leaves_the_others(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    del tools

    def handle(index: int) -> int:
        if index == 0:
            raise NvmlError(15)
        return index

    use(monkeypatch, fake_nvml(nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=handle))
    nvidia = machine_nvidia.probe_nvidia()
    assert [gpu.index for gpu in nvidia.gpus] == [1]
    assert "NVML cannot read GPU 0" in nvidia.problem


def test_broken_nvml_without_nvidia_smi_is_a_problem(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    del tools
    use(monkeypatch, fake_nvml(nvmlInit=raising(9)))
    assert machine_nvidia.probe_nvidia().problem == "NVML failed: error 9"


def test_broken_nvml_gives_way_to_nvidia_smi(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.nvidia_smi()
    use(monkeypatch, fake_nvml(nvmlInit=raising(9)))
    nvidia = machine_nvidia.probe_nvidia()
    assert (nvidia.source, len(nvidia.gpus)) == ("nvidia-smi", 1)


def test_bindings_without_a_driver_are_no_problem(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    del tools
    use(monkeypatch, fake_nvml(nvmlInit=raising(12)))
    nvidia = machine_nvidia.probe_nvidia()
    assert (nvidia.source, nvidia.problem) == ("none", "")


def test_hanging_nvml_is_a_problem_and_bounded(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.nvidia_smi()
    # Longer than the time-out, short enough not to outlive the tests.
    use(monkeypatch, fake_nvml(nvmlInit=lambda: time.sleep(2)))
    monkeypatch.setattr(machine_nvml, "TIMEOUT_S", 0.1)
    nvidia = machine_nvidia.probe_nvidia()
    assert (nvidia.source, nvidia.problem) == ("nvml", "NVML did not answer within 0.1 s")


def mac_tools(tools: Tools, *, chip: str = "Apple M4 Max", arm64: str = "1", translated: str = "0") -> None:
    tools.put(
        "sysctl",
        f"case \"$2\" in\nhw.optional.arm64) echo {arm64};;\nmachdep.cpu.brand_string) echo '{chip}';;\n"
        f"sysctl.proc_translated) echo {translated};;\nhw.memsize) echo 68719476736;;\n*) exit 1;;\nesac",
    )
    tools.put("sw_vers", "echo 26.1")
    tools.put("system_profiler", """echo '{"SPDisplaysDataType": [{"_name": "Apple M4 Max", "sppci_cores": "40"}]}'""")
    tools.put(
        "vm_stat",
        "echo 'Mach Virtual Memory Statistics: (page size of 16384 bytes)'\n"
        "echo 'Pages free:      1000.'\necho 'Pages active:    5000.'\necho 'Pages inactive:  2000.'",
    )


@pytest.fixture
def mac(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("", ("", "", ""), ""))
    monkeypatch.setitem(sys.modules, "psutil", None)
    return tools


def test_mac_is_read(mac: Tools) -> None:
    mac_tools(mac)
    machine = machine_probe.probe()
    apple = machine.apple
    assert apple is not None
    assert (apple.chip, apple.macos_version, apple.gpu_cores) == ("Apple M4 Max", (26, 1), 40)
    assert (apple.is_apple_silicon, apple.is_rosetta) == (True, False)
    assert apple.unified_memory_bytes == machine.memory_total_bytes == 64 * 2**30
    assert machine.memory_available_bytes == 3000 * 16384
    assert machine.nvidia.source == "none"


def test_rosetta_python_is_seen(mac: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    mac_tools(mac, chip="Apple M4", translated="1")
    apple = machine_probe.probe().apple
    assert apple is not None
    assert (apple.is_apple_silicon, apple.is_rosetta) == (True, True)


def test_intel_mac_is_seen(mac: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    mac_tools(mac, chip="Intel(R) Core(TM) i7", arm64="0")
    apple = machine_probe.probe().apple
    assert apple is not None
    assert (apple.is_apple_silicon, apple.gpu_cores) == (False, None)


@pytest.mark.parametrize("body", ["exit 1", "echo '<<<'", "sleep 300"])
def test_mac_whose_tools_do_not_answer_is_unknown_and_bounded(
    mac: Tools, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(machine_probe, "TIMEOUT_S", 0.1)
    for name in ("sysctl", "sw_vers", "system_profiler", "vm_stat"):
        mac.put(name, body)
    started = time.monotonic()
    machine = machine_probe.probe()
    assert time.monotonic() - started < GENEROUS_S
    assert machine.apple is not None
    assert (machine.apple.macos_version, machine.apple.gpu_cores, machine.memory_total_bytes) == (None, None, None)
    assert machine.apple.is_apple_silicon  # what Python itself knows


@pytest.fixture
def linux(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up /proc and /sys/fs/cgroup, with 64 GB and no limits."""
    del tools
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    cgroup.mkdir()
    (proc / "meminfo").write_text("MemTotal:  64000000 kB\nMemAvailable: 60000000 kB\n", encoding="ascii")
    (proc / "cpuinfo").write_text("processor : 0\nmodel name\t: AMD EPYC 9654\n", encoding="ascii")
    (proc / "self" / "cgroup").write_text("0::/job\n", encoding="ascii")
    monkeypatch.setattr(machine_probe, "PROC", proc)
    monkeypatch.setattr(machine_probe, "CGROUP", cgroup)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)
    monkeypatch.setitem(sys.modules, "psutil", None)
    return tmp_path


def test_linux_without_limits_is_the_whole_machine(linux: Path) -> None:
    del linux
    machine = machine_probe.probe()
    assert (machine.cpu_model, machine.cpu_count) == ("AMD EPYC 9654", 16)
    assert (machine.memory_total_bytes, machine.memory_available_bytes) == (64_000_000 * 1024, 60_000_000 * 1024)
    assert machine.apple is None


def test_limits_of_cgroups_2_count_at_every_level(linux: Path) -> None:
    inner = linux / "cgroup" / "job"
    inner.mkdir()
    (inner / "cpu.max").write_text("250000 100000\n", encoding="ascii")
    (inner / "memory.max").write_text("max\n", encoding="ascii")
    (linux / "cgroup" / "memory.max").write_text("8000000000\n", encoding="ascii")
    (linux / "cgroup" / "memory.current").write_text("6000000000\n", encoding="ascii")
    (linux / "cgroup" / "memory.stat").write_text("anon 1\ninactive_file 1000000000\n", encoding="ascii")
    machine = machine_probe.probe()
    assert machine.cpu_count == 3
    assert (machine.memory_total_bytes, machine.memory_available_bytes) == (8 * 10**9, 3 * 10**9)


def test_a_wider_limit_that_others_have_filled_leaves_no_more_than_its_rest(linux: Path) -> None:
    for folder, limit, used in ((linux / "cgroup" / "job", 8, 1), (linux / "cgroup", 16, 14)):
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}000000000\n", encoding="ascii")
        (folder / "memory.current").write_text(f"{used}000000000\n", encoding="ascii")
    machine = machine_probe.probe()
    assert (machine.memory_total_bytes, machine.memory_available_bytes) == (8 * 10**9, 2 * 10**9)


def test_whoever_counts_cores_counts_the_containers_quota_in(linux: Path) -> None:
    (linux / "cgroup" / "cpu.max").write_text("200000 100000\n", encoding="ascii")
    assert (machine_probe.usable_cores(), processes_for(), workers()) == (2, 2, 2)


def test_limits_of_cgroups_1_count(linux: Path) -> None:
    (linux / "proc" / "self" / "cgroup").write_text("3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n", encoding="ascii")
    for controller, name, text in (
        ("cpu", "cpu.cfs_quota_us", "200000"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("memory", "memory.limit_in_bytes", "4000000000"),
        ("memory", "memory.usage_in_bytes", "1000000000"),
    ):
        (linux / "cgroup" / controller).mkdir(exist_ok=True)
        (linux / "cgroup" / controller / name).write_text(text, encoding="ascii")
    machine = machine_probe.probe()
    assert machine.cpu_count == 2
    assert (machine.memory_total_bytes, machine.memory_available_bytes) == (4 * 10**9, 3 * 10**9)


def test_linux_on_a_mac_is_recognised(linux: Path) -> None:
    (linux / "proc" / "cpuinfo").write_text("processor\t: 0\nCPU implementer\t: 0x61\n", encoding="ascii")
    assert machine_probe.probe().cpu_model == "Apple silicon (Linux guest)"


def test_container_is_recognised_by_its_environment(linux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del linux
    monkeypatch.setattr(machine_probe, "_CONTAINER_MARKS", ())
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("container", raising=False)
    assert not machine_probe.probe().in_container
    monkeypatch.setenv("container", "podman")
    assert machine_probe.probe().in_container


def test_this_machine_can_be_probed() -> None:
    machine = machine_probe.probe()
    assert machine.cpu_count >= 1
    assert machine.disk_free_bytes


def test_free_space_is_found_for_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert machine_probe.disk_free_bytes(tmp_path / "not" / "yet")
