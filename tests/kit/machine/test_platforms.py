"""Each recorded machine gets its platform, its configuration and its findings; rules hold at their limits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.platforms import PLATFORMS
from kit.machine import facts as machines
from kit.machine.facts import Gpu, Machine, Nvidia
from kit.machine.planned import planned
from kit.machine.platforms import CONFIGS, Judgement, hours, judge

if TYPE_CHECKING:
    from pathlib import Path

FIXTURES = PROJECT_ROOT / "tests" / "fixtures" / "machines"
BASE, H100, M4, DEMO = (CONFIGS[name] for name in ("cuda", "h100", "m4", "cpu"))

# fixture: platform, configuration, next command, {finding: severity} of what is neither ok nor skipped
EXPECTED: dict[str, tuple[str, Path, str, dict[str, str]]] = {
    "h100_80gb": ("h100", H100, "make train-h100", {}),
    "h100_mig_slice": ("cuda", BASE, f"make train CONFIG={BASE}", {"gpu.mig": "warning"}),
    "h200": ("h100", H100, "make train-h100", {}),
    "a100_40gb": ("cuda", BASE, f"make train CONFIG={BASE}", {"gpu.memory": "warning"}),
    "h100_two": ("h100", H100, "make train-h100", {"gpu.several": "warning"}),
    "h100_driver_too_old": ("h100", H100, "make detect", {"nvidia.driver": "error"}),
    "h100_busy": ("h100", H100, "make detect", {"gpu.busy": "error"}),
    "rtx_4090": ("cuda", BASE, f"make train CONFIG={BASE}", {"gpu.memory": "warning"}),
    "m4_16gb": (
        "m4",
        M4,
        "make demo",
        {"apple.four_bit": "warning", "machine.memory": "warning", "apple.memory": "error"},
    ),
    "m4_32gb": ("m4", M4, "make train-m4", {}),
    "m4_max": ("m4", M4, "make train-m4", {}),
    "m4_macos_13": ("m4", M4, "make detect", {"apple.four_bit": "warning", "apple.macos": "error"}),
    "m4_rosetta": ("cpu", DEMO, "make detect", {"apple.four_bit": "warning", "apple.python": "error"}),
    "intel_mac": ("cpu", DEMO, "make detect", {"apple.intel": "error"}),
    "linux_cpu": ("cpu", DEMO, "make demo", {}),
    "nvidia_smi_broken": ("cpu", DEMO, "make detect", {"nvidia.no_answer": "error"}),
    "nvidia_smi_hanging": ("cpu", DEMO, "make detect", {"nvidia.no_answer": "error"}),
}


def fixture(name: str) -> Machine:
    return machines.read(FIXTURES / f"{name}.json")


def with_gpu(recorded: str = "h100_80gb", /, **changes: Any) -> Machine:
    """Return a recorded machine with its first GPU changed."""
    machine = fixture(recorded)
    first, *rest = machine.nvidia.gpus
    return replace(machine, nvidia=replace(machine.nvidia, gpus=(replace(first, **changes), *rest)))


def with_nvidia(recorded: str = "h100_80gb", /, **changes: Any) -> Machine:
    machine = fixture(recorded)
    return replace(machine, nvidia=replace(machine.nvidia, **changes))


def with_apple(recorded: str = "m4_32gb", /, **changes: Any) -> Machine:
    machine = fixture(recorded)
    assert machine.apple is not None
    return replace(machine, apple=replace(machine.apple, **changes))


def severity(machine: Machine, id_: str) -> str:
    (found,) = [finding.severity for finding in judge(machine).findings if finding.id == id_]
    return found


def fix(judgement: Judgement, id_: str) -> str:
    return next(finding.fix for finding in judgement.findings if finding.id == id_)


def test_no_fixture_is_untested() -> None:
    found = {path.relative_to(FIXTURES).with_suffix("").as_posix() for path in FIXTURES.rglob("*.json")}
    assert len(found) == 17
    assert found == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_recorded_machine_is_judged(name: str) -> None:
    platform, config, next_command, troubles = EXPECTED[name]
    judgement = judge(fixture(name))
    assert judgement.platform == platform
    assert judgement.recommended_config == config
    assert judgement.next_command == next_command
    found = {item.id: item.severity for item in judgement.findings if item.severity in ("warning", "error")}
    assert found == troubles


@pytest.mark.parametrize("name", EXPECTED)
def test_whatever_is_wrong_has_a_fix(name: str) -> None:
    for finding in judge(fixture(name)).findings:
        assert finding.fix or finding.severity in ("ok", "skipped"), finding


@pytest.mark.parametrize("name", EXPECTED)
def test_every_finding_has_its_own_id(name: str) -> None:
    ids = [finding.id for finding in judge(fixture(name)).findings]
    assert len(ids) == len(set(ids))


def test_reason_names_size_and_compute_capability() -> None:
    assert judge(fixture("h100_80gb")).reason.startswith("CUDA GPU with 85.5 GB, compute capability 9.0")


def test_apple_reason_names_the_chip() -> None:
    assert "Apple M4 Max, 40 GPU cores, 64 GB" in judge(fixture("m4_max")).reason


@pytest.mark.parametrize(
    ("changes", "platform"),
    [
        ({"memory_total_bytes": 70 * 10**9}, "h100"),
        ({"memory_total_bytes": 70 * 10**9 - 1}, "cuda"),
        ({"compute_capability": (8, 0)}, "cuda"),
        ({"compute_capability": (10, 0)}, "cuda"),
        ({"compute_capability": None}, "cuda"),
    ],
)
def test_h100_is_memory_and_compute_capability(changes: dict[str, Any], platform: str) -> None:
    assert judge(with_gpu(**changes)).platform == platform


def test_large_gpu_of_another_kind_gets_the_h100_configuration() -> None:
    judgement = judge(with_gpu(name="NVIDIA A100-SXM4-80GB", compute_capability=(8, 0)))
    assert (judgement.platform, judgement.recommended_config) == ("cuda", H100)


@pytest.mark.parametrize(
    ("driver", "expected"),
    [("525.60.12", "error"), ("525.60.13", "ok"), ("530.30.02", "ok"), ("580.159.03", "ok"), (None, "skipped")],
)
def test_driver_limits(driver: str | None, expected: str) -> None:
    assert severity(with_nvidia(driver_version=driver), "nvidia.driver") == expected


@pytest.mark.parametrize(("used", "expected"), [(4 * 2**20, "ok"), (20 * 10**9, "warning"), (69 * 10**9, "error")])
def test_memory_taken_stops_an_h100_that_has_less_left_than_its_configuration_takes(used: int, expected: str) -> None:
    """20 GB in use were an error, with 65 GB free for a run that is planned to take 17."""
    assert severity(with_gpu(memory_used_bytes=used), "gpu.busy") == expected


def test_unknown_use_of_memory_is_said_and_stops_nothing() -> None:
    assert severity(with_gpu(memory_used_bytes=None), "gpu.busy") == "skipped"


def test_busy_gpu_beside_an_idle_one_points_at_it() -> None:
    judgement = judge(with_gpu("h100_two", memory_used_bytes=60 * 10**9))
    assert "CUDA_VISIBLE_DEVICES=1" in fix(judgement, "gpu.busy")


@pytest.mark.parametrize(("size", "expected"), [(5 * 10**9, "error"), (10 * 10**9, "warning"), (75 * 10**9, "ok")])
def test_mig_slice_by_size(size: int, expected: str) -> None:
    assert severity(with_gpu("h100_mig_slice", memory_total_bytes=size), "gpu.mig") == expected


def test_mig_mode_without_slices_leaves_no_gpu() -> None:
    judgement = judge(with_gpu(mig_enabled=True))
    assert judgement.platform == "cpu"
    assert "nvidia-smi mig -cgi" in fix(judgement, "gpu.mig")


def test_gpu_too_small_for_7b_leads_to_the_demo() -> None:
    judgement = judge(with_gpu("rtx_4090", memory_total_bytes=6 * 10**9))
    assert severity(with_gpu("rtx_4090", memory_total_bytes=6 * 10**9), "gpu.memory") == "error"
    assert judgement.next_command == "make demo"


def test_gpu_without_bfloat16_gets_the_overrides_in_the_next_command() -> None:
    machine = with_gpu("rtx_4090", name="Tesla T4", memory_total_bytes=15360 * 2**20, compute_capability=(7, 5))
    judgement = judge(machine)
    assert severity(machine, "gpu.bf16") == "warning"
    assert 'SET="training.bf16=false training.fp16=true' in judgement.next_command


def test_gpu_newer_than_cuda_12_1_needs_the_current_stack() -> None:
    assert fix(judge(with_gpu(name="NVIDIA B200", compute_capability=(10, 0))), "gpu.stack") == "use STACK=current"


def test_cuda_visible_devices_chooses_the_gpu() -> None:
    judgement = judge(with_nvidia("h100_two", cuda_visible_devices="1", visible=(1,)))
    assert judgement.gpu is not None
    assert judgement.gpu.index == 1


def test_hidden_gpus_are_said_to_be_hidden() -> None:
    machine = with_nvidia(cuda_visible_devices="", visible=())
    assert judge(machine).platform == "cpu"
    assert severity(machine, "gpu.hidden") == "warning"


def test_of_different_gpus_the_fastest_is_first_as_for_cuda() -> None:
    machine = fixture("h100_80gb")
    small = Gpu(0, "NVIDIA T400 4GB", 4 * 2**30, 0, (7, 5))
    mixed = replace(machine, nvidia=replace(machine.nvidia, gpus=(small, replace(machine.nvidia.gpus[0], index=1))))
    judgement = judge(mixed)
    assert judgement.platform == "h100"
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1" in fix(judgement, "gpu.mixed")


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("nvidia-smi did not answer within 10 s", "Xid"),
        ("nvidia-smi failed with exit code 18: Failed to initialize NVML: Driver/library version mismatch", "restart"),
        ("nvidia-smi failed with exit code 12: NVIDIA-SMI couldn't find libnvidia-ml.so library", "--gpus all"),
        ("nvidia-smi failed with exit code 1", "reinstall"),
    ],
)
def test_broken_nvidia_smi_is_mended_by_its_cause(problem: str, words: str) -> None:
    judgement = judge(with_nvidia("linux_cpu", source="nvidia-smi", problem=problem))
    assert words in fix(judgement, "nvidia.no_answer")


def test_driver_without_a_gpu_is_only_a_warning() -> None:
    machine = with_nvidia("linux_cpu", source="nvidia-smi", problem="nvidia-smi failed: No devices were found")
    assert severity(machine, "nvidia.no_device") == "warning"


def test_gpu_without_a_driver_is_only_a_warning() -> None:
    machine = replace(
        fixture("linux_cpu"), nvidia=Nvidia(problem="an NVIDIA GPU is on the PCI bus, but its driver is not available")
    )
    assert severity(machine, "nvidia.no_driver") == "warning"


def test_one_gpu_lost_of_two_is_only_a_warning() -> None:
    assert severity(with_nvidia(problem="NVML cannot read GPU 1: GPU is lost"), "nvidia.problem") == "warning"


@pytest.mark.parametrize(
    ("changes", "id_", "expected"),
    [
        ({"macos_version": (14, 0)}, "apple.macos", "ok"),
        ({"macos_version": (13, 9)}, "apple.macos", "error"),
        ({"macos_version": None}, "apple.macos", "skipped"),
        ({"macos_version": (15, 5)}, "apple.four_bit", "warning"),
        ({"macos_version": (26, 0)}, "apple.four_bit", "ok"),
        ({"unified_memory_bytes": 32 * 2**30}, "apple.memory", "ok"),
        ({"unified_memory_bytes": 24 * 2**30}, "apple.memory", "warning"),
        ({"unified_memory_bytes": 18 * 2**30}, "apple.memory", "error"),
        ({"unified_memory_bytes": None}, "apple.memory", "skipped"),
    ],
)
def test_mac_limits(changes: dict[str, Any], id_: str, expected: str) -> None:
    assert severity(with_apple(**changes), id_) == expected


def test_macos_before_mps_is_a_cpu() -> None:
    assert judge(with_apple(macos_version=(12, 2))).platform == "cpu"


def test_torch_saying_no_to_mps_is_a_cpu() -> None:
    assert judge(replace(fixture("m4_32gb"), mps_available=False)).platform == "cpu"


@pytest.mark.parametrize(
    ("changes", "id_", "expected"),
    [
        ({"disk_free_bytes": 55 * 10**9}, "machine.disk", "warning"),
        ({"disk_free_bytes": 10**9}, "machine.disk", "error"),
        ({"disk_free_bytes": None}, "machine.disk", "skipped"),
        ({"memory_total_bytes": 11 * 10**9}, "machine.memory", "warning"),
        ({"memory_available_bytes": 4 * 10**9}, "machine.memory", "warning"),
        ({"memory_total_bytes": None}, "machine.memory", "skipped"),
        ({"system": "Windows"}, "machine.system", "error"),
        ({"cpu_model": "Apple silicon (Linux guest)"}, "machine.system", "warning"),
    ],
)
def test_host_limits(changes: dict[str, Any], id_: str, expected: str) -> None:
    assert severity(replace(fixture("h100_80gb"), **changes), id_) == expected


def test_disk_finding_shows_its_arithmetic() -> None:
    judgement = judge(replace(fixture("h100_80gb"), disk_free_bytes=30 * 10**9))
    message = next(finding.message for finding in judgement.findings if finding.id == "machine.disk")
    assert "14.5 weights + 15 image" in message


def test_every_platform_has_a_speed_and_a_configuration() -> None:
    assert set(CONFIGS) == set(PLATFORMS)
    assert all(planned(platform).slow_tokens_per_second > 0 for platform in PLATFORMS)


def test_h100_hours_hold_what_the_project_states() -> None:
    low, high = hours(15_000 * 3 * 2048, "h100")
    assert low < 3
    assert high > 4


def test_m4_hours_hold_at_78_tokens_an_example() -> None:
    assert hours(15_000 * 3 * 78, "m4")[1] == pytest.approx(12, abs=0.1)
    assert "about 78 tokens per example" in judge(fixture("m4_32gb")).expected_time


def test_hours_scale_with_the_gpu_cores_of_a_mac() -> None:
    assert hours(10**6, "m4", 40)[0] == pytest.approx(hours(10**6, "m4")[0] / 4)


def test_no_tokens_take_no_time() -> None:
    assert hours(0, "cuda") == (0, 0)


@pytest.mark.parametrize(("tokens", "platform"), [(1, "tpu"), (-1, "h100")])
def test_hours_refuse_what_cannot_be(tokens: int, platform: str) -> None:
    with pytest.raises(ValueError, match=r"tpu|-1"):
        hours(tokens, platform)
