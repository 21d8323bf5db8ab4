"""What the container's files promise, read from the files themselves; what they do is tried in tests/docker."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from kit.image.build import DEFAULT_BASE
from kit.interpreter import PROJECT_ROOT

DOCKERFILE = (PROJECT_ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((PROJECT_ROOT / "docker" / "compose.yaml").read_text())
GPU = yaml.safe_load((PROJECT_ROOT / "docker" / "compose.gpu.yaml").read_text())


def test_no_frontend_is_pulled() -> None:
    assert not re.search(r"^#\s*syntax=", DOCKERFILE, re.MULTILINE)


def test_the_default_base_is_the_one_the_build_names() -> None:
    assert f"\nARG BASE_IMAGE={DEFAULT_BASE}\n" in DOCKERFILE


def test_every_installation_is_from_a_lock_with_hashes() -> None:
    steps = re.split(r"^(?=RUN |ENV |COPY )", DOCKERFILE, flags=re.MULTILINE)
    installing = [step for step in steps if "pip install" in step or "pip sync" in step]
    assert len(installing) == 2
    assert all("--require-hashes" in step and "--only-binary :all:" in step for step in installing)


def test_scripts_come_after_everything_that_takes_long() -> None:
    assert DOCKERFILE.index("COPY scripts") > DOCKERFILE.rindex("RUN ")


def test_the_last_user_is_a_number() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE)[-1] == "${KIT_UID}:${KIT_GID}"


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_every_service_is_confined(service: str) -> None:
    settings = COMPOSE["services"][service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in settings
    assert settings["stop_grace_period"] == "10m"


def test_secrets_are_named_and_never_written_down() -> None:
    for service in COMPOSE["services"].values():
        assert all("=" not in variable for variable in service["environment"])


def test_what_uses_the_gpu_reserves_it_and_the_demo_does_not() -> None:
    assert set(GPU["services"]) == {"train", "validate", "detect", "shell"}
    for service in GPU["services"].values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_the_example_of_an_env_file_holds_no_value() -> None:
    lines = (PROJECT_ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


def test_the_env_file_itself_is_ignored() -> None:
    if shutil.which("git") is None or not (PROJECT_ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    ignored = subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=PROJECT_ROOT, check=False)
    assert ignored.returncode == 0


@pytest.mark.docker
@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]])
def test_compose_accepts_the_files(files: list[str]) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    command = ["docker-compose", "--project-directory", str(PROJECT_ROOT)]
    for name in files:
        command += ["--file", str(PROJECT_ROOT / "docker" / name)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, "config"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    train = yaml.safe_load(done.stdout)["services"]["train"]
    assert train["environment"]["HF_HUB_OFFLINE"] == "1"
    assert bool(train.get("deploy")) == (len(files) > 1)
