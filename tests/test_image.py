"""`kit image` as it is, on a host that is not there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from stand_in_engine import EngineHost

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def host(tmp_path: Path) -> EngineHost:
    return EngineHost(tmp_path)


def test_training_builds_what_is_missing_and_hands_over_to_compose(host: EngineHost) -> None:
    done = host.image("train", "configs/training_config_h100.yaml", "training.seed=1")
    assert done.returncode == 0, done.stderr
    built, ran = host.calls()
    assert built.startswith("buildx build --load")
    assert "STACK=reference" in built
    assert "compose.gpu.yaml run --rm -T --name mistral-qlora-kit-train-" in ran
    assert ran.endswith(" train configs/training_config_h100.yaml training.seed=1")


def test_the_container_is_told_which_image_it_is(host: EngineHost) -> None:
    docker = (host.bin / "docker").read_text()
    docker = docker.replace('echo "$*" >>', 'echo "$* as $KIT_IMAGE_ID" >>')
    host.stub("docker", docker.replace("  cat ", '  case "$*" in *.Id*) echo sha256:beef ;; esac\n  cat '))
    assert host.image("train").returncode == 0
    built, ran = host.calls()
    assert (built.endswith(" as "), ran.endswith(" as sha256:beef")) == (True, True)


def test_a_build_that_fails_starts_nothing(host: EngineHost) -> None:
    done = host.image("train", FAILS="1")
    assert done.returncode == 1
    assert len(host.calls()) == 1
    assert "FLASH_ATTN_WHEEL=" in done.stderr


def test_the_exit_code_of_what_ran_inside_is_the_commands(host: EngineHost) -> None:
    docker = (host.bin / "docker").read_text()
    host.stub("docker", docker.replace('exit "${FAILS:-0}"', 'case "$*" in buildx*) exit 0 ;; *) exit 143 ;; esac'))
    assert host.image("train").returncode == 143


@pytest.mark.parametrize(
    ("name", "body", "fix"),
    [
        ("nvidia-smi", "echo 'no devices were found'; exit 6", "install NVIDIA's driver"),
        ("nvidia-smi", "echo '470.57.02, NVIDIA A100'", "update the host's driver"),
        ("docker", '[ "$1" = info ] && echo "permission denied" >&2; exit 1', "usermod -aG docker"),
    ],
)
def test_a_host_that_cannot_train_says_why_before_anything_is_built(
    host: EngineHost, name: str, body: str, fix: str
) -> None:
    host.stub(name, body)
    done = host.image("train")
    assert done.returncode == 1
    assert fix in done.stderr
    assert "not started" in done.stderr
    assert host.calls() == []


def test_what_needs_no_gpu_runs_without_one(host: EngineHost) -> None:
    host.stub("nvidia-smi", "exit 9")
    done = host.image("--stack", "current", "detect")
    assert done.returncode == 0, done.stderr
    assert "compose.gpu.yaml" not in host.calls()[-1]


def test_check_answers_as_one_json_object(host: EngineHost) -> None:
    host.stub("nvidia-smi", "exit 9")
    done = host.image("check")
    assert done.returncode == 1
    found = json.loads(host.image("--json", "check").stdout)
    assert found["verdict"] == "failed"
    assert "image.gpu_missing" in [finding["id"] for finding in found["findings"]]


def test_the_token_is_on_no_command_line(host: EngineHost) -> None:
    host.image("train", WANDB_API_KEY="wandb-key")
    assert "wandb-key" not in "".join(host.calls())


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "configs/training_config_h100.yaml", "wandb.project=hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"),
        ("train", "--token", "short"),
        ("train", "wandb.entity=the-wandb-key-1"),
        ("--flash-attn-wheel", "https://me:p4ss-w0rd@host/a.whl", "build"),
        ("--base-image", "me:p4ss-w0rd@registry/base".replace("me:", "https://me:"), "build"),
    ],
    ids=["by its form", "by its option", "by its value", "wheel", "base"],
)
def test_a_secret_reaches_neither_the_engines_command_line_nor_the_image(
    host: EngineHost, arguments: tuple[str, ...]
) -> None:
    done = host.image(*arguments, WANDB_API_KEY="the-wandb-key-1")
    assert done.returncode == 2
    assert "a token or a password is on the command line" in done.stderr
    assert host.calls() == []
    assert not [text for text in ("hf_Ab", "p4ss", "the-wandb-key-1") if text in done.stderr + done.stdout]
