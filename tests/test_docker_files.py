"""What the container's files promise, read from the files themselves; what they do is tried in tests/docker."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from kit.cli.interpreter import PROJECT_ROOT
from kit.image.build import DEFAULT_BASE

DOCKERFILE = (PROJECT_ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((PROJECT_ROOT / "docker" / "compose.yaml").read_text())
GPU = yaml.safe_load((PROJECT_ROOT / "docker" / "compose.gpu.yaml").read_text())
# Each instruction on one line, without comments.
INSTRUCTIONS = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
STEPS = [line for line in INSTRUCTIONS if line.startswith("RUN ")]


def test_no_frontend_is_pulled() -> None:
    assert not re.search(r"^#\s*syntax=", DOCKERFILE, re.MULTILINE)


def test_the_default_base_is_the_one_the_build_names() -> None:
    assert f"\nARG BASE_IMAGE={DEFAULT_BASE}\n" in DOCKERFILE


def test_every_installation_is_from_a_lock_with_hashes() -> None:
    steps = re.split(r"^(?=RUN |ENV |COPY )", DOCKERFILE, flags=re.MULTILINE)
    installing = [step for step in steps if "pip install" in step or "pip sync" in step]
    assert len(installing) == 2
    assert all("--require-hashes" in step and "--only-binary :all:" in step for step in installing)


def test_the_image_holds_the_product_and_none_of_its_workshop() -> None:
    copied = {line.split()[-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and " /kit/" in line}
    assert copied == {"/kit/", "/kit/locks", "/kit/data/sample", "/kit/configs", "/kit/scripts"}


def test_scripts_come_after_everything_that_takes_long() -> None:
    assert DOCKERFILE.index("COPY scripts") > DOCKERFILE.rindex("RUN ")


@pytest.mark.parametrize(
    ("does", "mounts"),
    [
        ("apt-get", ["target=/var/cache/apt,", "target=/var/lib/apt/lists,"]),
        ("uv pip sync", ["type=cache,id=kit-uv,target=/var/cache/uv", "source=/opt/uv,target=/opt/uv"]),
    ],
)
def test_what_is_downloaded_stays_in_a_cache_outside_the_layers(does: str, mounts: list[str]) -> None:
    steps = [step for step in STEPS if does in step]
    assert steps
    assert [step for step in steps if not all(mount in step for mount in mounts)] == []


@pytest.mark.parametrize(
    ("does", "variable"),
    [("pip install", "PIP_CERT"), ("uv pip sync", "SSL_CERT_FILE"), ("flash_attn_wheel.py", "SSL_CERT_FILE")],
)
def test_every_download_can_trust_a_proxys_authority_that_no_layer_keeps(does: str, variable: str) -> None:
    (step,) = (step for step in STEPS if does in step)
    assert "--mount=type=secret,id=ca,target=/run/secrets/ca.pem" in step
    assert f"export {variable}=/run/secrets/ca.pem" in step


def test_triton_finds_its_compiler_and_pythons_headers() -> None:
    installed = re.findall(r"apt-get -qq install --yes --no-install-recommends ([^>;]*)", STEPS[0])
    assert {"gcc", "libc6-dev", "python3.11-dev"} <= set(" ".join(installed).split())


def test_nvidias_runtime_is_asked_for_gpu_and_driver_by_any_base() -> None:
    """A base of NVIDIA's sets these two; without them a container on a plain Debian sees no GPU."""
    (environment,) = (line for line in INSTRUCTIONS if line.startswith("ENV PATH="))
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(environment.split())


def test_signals_reach_the_run_through_an_init() -> None:
    (entrypoint,) = (line for line in INSTRUCTIONS if line.startswith("ENTRYPOINT "))
    assert json.loads(entrypoint.removeprefix("ENTRYPOINT "))[:2] == ["/usr/bin/tini", "--"]
    assert {tuple(service["entrypoint"][:2]) for service in COMPOSE["services"].values()} == {("tini", "--")}


def test_the_last_user_is_a_number() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE)[-1] == "${KIT_UID}:${KIT_GID}"


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_every_service_is_confined(service: str) -> None:
    settings = COMPOSE["services"][service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["user"] == "${KIT_UID:-1000}:${KIT_GID:-1000}"
    assert not settings.keys() & {"privileged", "cap_add", "devices", "ipc", "network_mode", "pid", "ports"}


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_a_service_stops_with_time_for_a_checkpoint_and_stays_stopped(service: str) -> None:
    settings = COMPOSE["services"][service]
    assert (settings["restart"], settings["stop_grace_period"]) == ("no", "10m")


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_a_service_has_the_memory_that_libraries_ask_for(service: str) -> None:
    """Docker's own 64 MB of shared memory are too few for workers; /tmp without exec holds nothing Triton can load."""
    settings = COMPOSE["services"][service]
    assert (settings["shm_size"], settings["ulimits"]) == ("8gb", {"stack": 67108864})
    (temporary,) = settings["tmpfs"]
    assert temporary.startswith("/tmp:exec,")  # noqa: S108 - in the container


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_a_service_writes_where_it_must_and_nowhere_else(service: str) -> None:
    mounts = {mount["target"]: mount for mount in COMPOSE["services"][service]["volumes"]}
    written = {target for target, mount in mounts.items() if not mount.get("read_only")}
    assert written == {"/cache", "/kit/models", "/kit/outputs", "/kit/measurements"}
    workshop = {"/kit/bench", "/kit/tools"} if service == "prove" else set()
    assert mounts.keys() - written == {"/kit/configs", "/kit/data"} | workshop
    assert mounts["/cache"]["type"] == "volume"


def test_secrets_are_named_and_never_written_down() -> None:
    for service in COMPOSE["services"].values():
        assert all("=" not in variable for variable in service["environment"])
        assert {"HF_TOKEN", "WANDB_API_KEY"} <= set(service["environment"])
    assert not re.search(r"^(ARG|ENV) .*(TOKEN|KEY|PASSWORD|SECRET)", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_a_service_hears_which_image_it_is(service: str) -> None:
    assert "KIT_IMAGE_ID" in COMPOSE["services"][service]["environment"]


def test_the_engine_gets_no_hidden_file_from_any_folder() -> None:
    ignored = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    assert ignored.index("**/.*") > max(index for index, line in enumerate(ignored) if line.startswith("!"))


def test_what_uses_the_gpu_reserves_it_and_the_demo_does_not() -> None:
    assert set(GPU["services"]) == {"train", "validate", "detect", "prove", "shell"}
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


@pytest.mark.docker
def test_compose_hands_on_what_the_env_file_holds_and_nothing_unset(tmp_path: Path) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    shutil.copytree(PROJECT_ROOT / "docker", tmp_path / "docker")
    example = (PROJECT_ROOT / ".env.example").read_text()
    # As a person fills it in: the mark of a comment goes, a value comes.
    (tmp_path / ".env").write_text(re.sub(r"^#([A-Z_]+)=.*$", r"\1=my-\1", example, flags=re.MULTILINE))
    command = ["docker-compose", "--project-directory", str(tmp_path)]
    command += [f"--file={tmp_path}/docker/{name}" for name in ("compose.yaml", "compose.gpu.yaml")]
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run([*command, "config"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)
    train = read["services"]["train"]
    secrets = ("HF_TOKEN", "WANDB_API_KEY")
    assert [train["environment"][name] for name in secrets] == [f"my-{name}" for name in secrets]
    assert train["environment"]["HF_ENDPOINT"] is None
    assert train["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["my-KIT_GPU"]
    assert read["volumes"]["cache"]["name"] == "my-KIT_CACHE"
