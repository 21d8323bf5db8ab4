import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.interpreter import PROJECT_ROOT


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Stand-ins for docker and nvidia-smi, first on PATH, that write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    info = json.dumps({"ServerVersion": "28.2.2", "Runtimes": {"nvidia": {}}})
    stub(
        folder,
        "docker",
        f"""[ "$1" = --version ] && echo "Docker version 28.2.2"
[ "$1" = info ] && echo '{info}'
[ "$1" = image ] && cat "{tmp_path}/labels" 2>/dev/null
case "$*" in *version | info* | image*) exit 0 ;; esac
echo "$*" >> "{tmp_path}/calls"
exit "${{FAILS:-0}}"
""",
    )
    stub(folder, "nvidia-smi", "echo '535.104.05, NVIDIA H100 80GB HBM3'")
    return folder


def stub(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def image(tools: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(tools), "HF_TOKEN": "hf_x", **variables}
    command = [sys.executable, str(PROJECT_ROOT / "scripts" / "image.py"), *arguments]
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def calls(tools: Path) -> list[str]:
    path = tools.parent / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_training_builds_what_is_missing_and_hands_over_to_compose(tools: Path) -> None:
    done = image(tools, "train", "configs/training_config_h100.yaml", "training.seed=1")
    assert done.returncode == 0, done.stderr
    built, ran = calls(tools)
    assert built.startswith("buildx build --load")
    assert "STACK=reference" in built
    assert "compose.gpu.yaml run --rm -T train configs/training_config_h100.yaml training.seed=1" in ran


def test_a_build_that_fails_starts_nothing(tools: Path) -> None:
    done = image(tools, "train", FAILS="1")
    assert done.returncode == 1
    assert len(calls(tools)) == 1
    assert "FLASH_ATTN_WHEEL=" in done.stderr


def test_the_exit_code_of_what_ran_inside_is_the_commands(tools: Path) -> None:
    docker = (tools / "docker").read_text()
    stub(tools, "docker", docker.replace('exit "${FAILS:-0}"', 'case "$*" in buildx*) exit 0 ;; *) exit 143 ;; esac'))
    assert image(tools, "train").returncode == 143


@pytest.mark.parametrize(
    ("name", "body", "fix"),
    [
        ("nvidia-smi", "echo 'no devices were found'; exit 6", "install NVIDIA's driver"),
        ("nvidia-smi", "echo '470.57.02, NVIDIA A100'", "update the host's driver"),
        ("docker", '[ "$1" = info ] && echo "permission denied" >&2; exit 1', "usermod -aG docker"),
    ],
)
def test_a_host_that_cannot_train_says_why_before_anything_is_built(
    tools: Path, name: str, body: str, fix: str
) -> None:
    stub(tools, name, body)
    done = image(tools, "train")
    assert done.returncode == 1
    assert fix in done.stderr
    assert "not started" in done.stderr
    assert calls(tools) == []


def test_what_needs_no_gpu_runs_without_one(tools: Path) -> None:
    stub(tools, "nvidia-smi", "exit 9")
    done = image(tools, "--stack", "current", "detect")
    assert done.returncode == 0, done.stderr
    assert "compose.gpu.yaml" not in calls(tools)[-1]


def test_check_answers_as_one_json_object(tools: Path) -> None:
    stub(tools, "nvidia-smi", "exit 9")
    done = image(tools, "check")
    assert done.returncode == 1
    found = json.loads(image(tools, "--json", "check").stdout)
    assert found["verdict"] == "failed"
    assert "image.gpu_missing" in [finding["id"] for finding in found["findings"]]


def test_the_token_is_on_no_command_line(tools: Path) -> None:
    image(tools, "train", WANDB_API_KEY="wandb-key")
    assert "wandb-key" not in "".join(calls(tools))
