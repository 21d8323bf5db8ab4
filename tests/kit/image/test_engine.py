import json
import os
from pathlib import Path

import pytest

from kit.cli.findings import Finding
from kit.image.engine import Client, Engine, clients_on, has_hub_token, probe
from kit.image.engine_rules import check_access, check_disk, check_engine, check_gpu, check_machine

GOOD = Engine(
    system="Linux",
    arch="x86_64",
    client=Client("/usr/bin/docker", (28, 2), has_buildx=True),
    compose=("/usr/bin/docker", "compose"),
    server="28.2.2",
    has_nvidia_runtime=True,
    free_bytes=100 * 10**9,
    driver="535.104.05",
    gpus=("NVIDIA H100 80GB HBM3",),
    has_hub_token=True,
)


def but(**changes: object) -> Engine:
    return Engine(**{**vars(GOOD), **changes})  # type: ignore[arg-type]


def judge(engine: Engine) -> list[Finding]:
    found = [*check_machine(engine), *check_engine(engine), *check_disk(engine, "reference")]
    return [*found, *check_gpu(engine), *check_access(engine)]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing but what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return folder


def stub(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def docker(folder: Path, info: dict[str, object] | None = None, version: str = "28.2.2", buildx: int = 0) -> None:
    answer = f"cat <<'END'\n{json.dumps(info)}\nEND" if info else "echo 'Cannot connect to the daemon' >&2; exit 1"
    stub(
        folder,
        "docker",
        f'case "$1" in\n--version) echo "Docker version {version}, build x";;\nbuildx) exit {buildx};;\n'
        f"compose) exit 0;;\ninfo)\n{answer.replace('cat ', '/bin/cat ')}\n;;\nesac",
    )


def test_a_good_host_has_nothing_to_mend() -> None:
    assert {finding.severity for finding in judge(GOOD)} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "identity", "fix"),
    [
        ({"client": None}, "image.engine_missing", "install Docker Engine"),
        ({"server": None, "server_problem": "permission denied"}, "image.engine_unreachable", "usermod -aG docker"),
        ({"server": None, "server_problem": "no such host"}, "image.engine_unreachable", "systemctl start docker"),
        ({"client": Client("d", (23, 0), has_buildx=False)}, "image.buildkit", "docker-buildx"),
        ({"compose": ()}, "image.compose_missing", "docker-compose"),
        ({"gpus": (), "gpu_problem": "no devices"}, "image.gpu_missing", "nvidia-smi must list the GPU"),
        ({"driver": "470.57.02"}, "image.driver_too_old", "update the host's driver"),
        ({"has_nvidia_runtime": False}, "image.gpu_runtime_missing", "nvidia-ctk runtime configure"),
        ({"system": "Darwin", "arch": "arm64"}, "image.machine", "make train-m4"),
        ({"arch": "aarch64"}, "image.machine", "x86-64"),
    ],
)
def test_what_is_wrong_is_said_with_its_fix(changes: dict[str, object], identity: str, fix: str) -> None:
    errors = [finding for finding in judge(but(**changes)) if finding.severity == "error"]
    assert [finding.id for finding in errors] == [identity]
    assert fix in errors[0].fix


@pytest.mark.parametrize(
    ("changes", "identity"), [({"free_bytes": 10**9}, "image.disk"), ({"has_hub_token": False}, "image.hub_token")]
)
def test_what_may_go_wrong_is_a_warning(changes: dict[str, object], identity: str) -> None:
    assert [finding.id for finding in judge(but(**changes)) if finding.severity == "warning"] == [identity]


def test_clients_before_23_have_buildkit_built_in() -> None:
    assert Client("docker", (20, 10), has_buildx=False).has_buildkit


def test_nothing_on_path_is_no_engine(tools: Path, tmp_path: Path) -> None:
    engine = probe(tmp_path)
    assert (engine.client, engine.compose, engine.server, engine.gpus) == (None, (), None, ())
    assert "nvidia-smi" in engine.gpu_problem
    assert tools.exists()


def test_a_daemon_that_does_not_answer_is_quoted(tools: Path, tmp_path: Path) -> None:
    docker(tools)
    engine = probe(tmp_path)
    assert (engine.server, engine.server_problem) == (None, "Cannot connect to the daemon")


def test_the_first_client_that_can_build_is_taken(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = tmp_path / "second"
    second.mkdir()
    docker(tools, {"ServerVersion": "28.2.2"}, version="28.2.2", buildx=1)
    docker(second, {"ServerVersion": "20.10.24"}, version="20.10.24", buildx=1)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{second}")
    assert [client.has_buildkit for client in clients_on(os.environ["PATH"])] == [False, True]
    engine = probe(tmp_path)
    assert engine.client is not None
    assert (engine.client.path, engine.server) == (str(second / "docker"), "20.10.24")


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, False),
        ({"Runtimes": {"nvidia": {}, "runc": {}}}, True),
        ({"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, True),
    ],
)
def test_the_gpu_runtime_is_found(tools: Path, tmp_path: Path, info: dict[str, object], expected: bool) -> None:
    docker(tools, {"ServerVersion": "28.2.2", **info})
    assert probe(tmp_path).has_nvidia_runtime is expected


def test_a_rootless_engine_is_recognised(tools: Path, tmp_path: Path) -> None:
    docker(tools, {"ServerVersion": "28.2.2", "SecurityOptions": ["name=seccomp", "name=rootless"]})
    assert probe(tmp_path).is_rootless


def test_nvidia_smi_is_asked_for_driver_and_gpus(tools: Path, tmp_path: Path) -> None:
    stub(tools, "nvidia-smi", "echo '535.104.05, NVIDIA H100 80GB HBM3'; echo '535.104.05, NVIDIA H100 80GB HBM3'")
    engine = probe(tmp_path)
    assert (engine.driver, engine.gpus) == ("535.104.05", ("NVIDIA H100 80GB HBM3",) * 2)


def test_an_nvidia_smi_that_fails_is_quoted(tools: Path, tmp_path: Path) -> None:
    stub(tools, "nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver'; exit 9")
    assert "has failed" in probe(tmp_path).gpu_problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [("HF_TOKEN=hf_x\n", True), ("export HF_TOKEN=hf_x", True), ("#HF_TOKEN=x\nHF_TOKEN=\n", False)],
)
def test_a_token_in_the_env_file_counts(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / ".env").write_text(text)
    assert has_hub_token(tmp_path, {}) is expected


def test_the_tokens_value_is_in_no_fact(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    engine = probe(tmp_path)
    assert engine.has_hub_token
    assert "hf_secret" not in repr(engine)
    assert tools.exists()
