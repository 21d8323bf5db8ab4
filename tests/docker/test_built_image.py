"""What an image that was really built does in a container that is really run."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from docker_image import DEMO, GID, UID, Image
from kit.image.container import Service, compose_variables, run_command
from kit.stacks.locks import packages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.slow]

# bitsandbytes' own set-up code, told that there is an H100; nothing of it runs on one.
_AS_ON_AN_H100 = """
import torch
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_capability = lambda *_: (9, 0)
from bitsandbytes.cuda_setup import main as setup
print("chosen", setup.evaluate_cuda_setup()[0])
chosen = setup.CUDASetup.get_instance()
chosen.run_cuda_setup()
print("loaded", getattr(chosen.lib, "_name", None))
runtimes = {line.split()[-1] for line in open("/proc/self/maps") if "libcudart.so" in line}
print("runtime", *sorted(runtimes))
"""


def config(image: Image) -> dict[str, object]:
    inspected = json.loads(image.call("image", "inspect", image.tag).stdout)[0]
    return dict(inspected["Config"])


def test_the_image_runs_as_a_number_that_is_not_root(image: Image) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(config(image)["User"]))


def test_labels_say_what_is_inside(image: Image) -> None:
    labels = dict(config(image)["Labels"])
    lock = (image.tree / "locks" / f"{image.stack}-linux-x86_64.txt").read_bytes()
    assert labels["kit.stacks.stack"] == image.stack
    assert labels["kit.lock.sha256"] == hashlib.sha256(lock).hexdigest()
    assert labels["org.opencontainers.image.revision"]


def test_a_run_can_name_the_image_it_was_made_in(image: Image) -> None:
    environment = dict(variable.split("=", 1) for variable in config(image)["Env"])
    labels = dict(config(image)["Labels"])
    assert environment["KIT_SOURCE_SHA256"] == labels["kit.source.sha256"]
    assert environment["KIT_LOCK_SHA256"] == labels["kit.lock.sha256"]


def test_everything_in_the_lock_is_inside(image: Image) -> None:
    done = image.run("python", "-m", "pip", "list", "--format", "json")
    listed = {canonicalize_name(item["name"]): item["version"] for item in json.loads(done.stdout)}
    locked = packages((image.tree / "locks" / f"{image.stack}-linux-x86_64.txt").read_text())
    assert {name: listed.get(canonicalize_name(name)) for name in locked} == locked


def test_a_service_is_confined_by_the_kernel_too(image: Image) -> None:
    asked = "id -u; grep -E '^(NoNewPrivs|CapEff|CapBnd):' /proc/self/status; touch /kit/x /opt/x /etc/x 2>&1"
    done = image.service("shell", "-c", asked)
    said = done.stdout.split("\n")
    assert said[0] == str(UID), done.stderr
    assert {line.split()[0]: int(line.split()[1], 16) for line in said[1:4]} == {
        "CapEff:": 0, "CapBnd:": 0, "NoNewPrivs:": 1,
    }  # fmt: skip
    assert done.stdout.count("Read-only file system") == 3


def test_nothing_of_the_installation_stays_behind(image: Image) -> None:
    folders = "/opt/uv /var/cache/uv /var/cache/apt/archives /var/lib/apt/lists /tmp ~root/.cache"
    done = image.run("sh", "-c", f"find {folders} -type f -size +0 2>/dev/null; true")
    assert done.stdout == ""


def test_detection_inside(image: Image) -> None:
    done = image.run("detect", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["machine"]["in_container"]) == (0, True)


def test_make_detects_inside_the_image(image: Image) -> None:
    if not image.compose:
        pytest.skip("compose is not installed")
    done = subprocess.run(
        ["make", "detect", "IN=docker", f"STACK={image.stack}", f"PYTHON={sys.executable}"],
        cwd=image.tree, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ", in a container" in done.stdout


def test_what_is_proved_inside_the_image_goes_into_the_persons_ledger(image: Image) -> None:
    before = set((image.tree / "measurements").glob("*.jsonl"))
    done = image.service("prove", "--scale", "small", "--only", "ceiling", "--ledger", "measurements")
    assert done.returncode == 0, done.stdout + done.stderr
    (ledger,) = set((image.tree / "measurements").glob("*.jsonl")) - before
    (line,) = ledger.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["result"]["matmul_flop_per_second"] > 0
    assert ledger.stat().st_uid == UID
    ledger.unlink()


def test_training_by_compose_validates_first_and_belongs_to_the_person(image: Image, short_run: list[str]) -> None:
    done = image.service("train", *short_run, f"training.run_name=short-{image.stack}")
    talk = done.stdout + done.stderr
    assert done.returncode == 0, talk
    assert "attention: " in talk
    assert "bitsandbytes: libbitsandbytes_cpu.so" in talk
    assert talk.index("ready") < talk.index("trained 3 steps")
    run = image.tree / "outputs" / f"short-{image.stack}"
    written = [run, *run.rglob("*")]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in written} == {(UID, GID)}
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    facts = json.loads((run / "run.json").read_text())
    assert facts["state"] == "finished"


def test_a_run_that_validation_refuses_is_not_started(image: Image, short_run: list[str]) -> None:
    done = image.run("train", *short_run, "training.run_name=refused", "training.optim=paged_adamw_32bit")
    assert done.returncode == 1
    assert not (image.tree / "outputs" / "refused").exists()


@pytest.mark.parametrize("tokens", [2048, 4096])
def test_long_rows_without_flash_attention(image: Image, short_run: list[str], tokens: int) -> None:
    """The reference stack has no SDPA for Mistral: eager attention at 4096 tokens is refused, with the reason."""
    done = image.run("validate", *short_run, f"training.max_seq_length={tokens}", "--json")
    found = {finding["id"]: finding for finding in json.loads(done.stdout)["findings"]}
    refused = image.stack == "reference" and tokens > 2048
    assert ("config.device.eager" in found) == refused
    if refused:
        assert "score matrix" in found["config.device.eager"]["message"]
        assert done.returncode == 1


def test_sigterm_ends_in_a_saved_checkpoint(image: Image, short_run: list[str]) -> None:
    endless = [
        *short_run,
        f"training.run_name=stopped-{image.stack}",
        "training.max_steps=100000",
        "training.save_steps=50000",
    ]
    endless += ["training.eval_steps=50000"]
    name = f"{image.name}-stopped"
    image.call("rm", "--force", name)
    assert (
        image.call("run", "--detach", f"--name={name}", *image.options(), image.tag, "train", *endless).returncode == 0
    )
    try:
        for _ in range(300):
            talk = image.call("logs", name)
            ended = json.loads(image.call("container", "inspect", name).stdout)[0]["State"]["Status"] == "exited"
            if ended or "step      1/" in talk.stdout + talk.stderr:
                break
            time.sleep(1)
        image.call("stop", "--time=120", name)
        state = json.loads(image.call("container", "inspect", name).stdout)[0]["State"]
        talk = image.call("logs", name)
    finally:
        image.call("rm", "--force", name)
    assert state["ExitCode"] == 143, (talk.stdout + talk.stderr)[-2000:]
    run = image.tree / "outputs" / f"stopped-{image.stack}"
    assert list((run / "checkpoints").glob("checkpoint-*/adapter_model.safetensors"))
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"


def test_ctrl_c_in_the_foreground_ends_in_a_saved_checkpoint_and_says_so(image: Image, short_run: list[str]) -> None:
    """As `kit image` does it without a terminal; itself it starts no training where there is no GPU."""
    name = f"signalled-{image.stack}"
    endless = [*short_run, f"training.run_name={name}", "training.max_steps=100000", "training.save_steps=50000"]
    endless += ["training.eval_steps=50000"]
    command = run_command(image.tree, image.compose, Service("train", endless, container=name))
    script = (
        f"import os, sys; sys.path.insert(0, {str(image.tree / 'scripts')!r})\n"
        "from kit.image.signals import run_passing_signals\n"
        f"raise SystemExit(run_passing_signals({command!r}, os.environ, {image.docker!r}, {name!r}))"
    )
    env = {**os.environ, **compose_variables(image.name, image.stack, (UID, GID))}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=image.tree, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        talk = []
        for line in process.stdout:
            talk.append(line)
            if "step      1/" in line:
                os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=120) == 130, "".join(talk)[-2000:]
    assert "checkpoint" in "".join(talk[-5:])
    run = image.tree / "outputs" / name
    assert list((run / "checkpoints").glob("checkpoint-*/adapter_model.safetensors"))
    assert image.call("container", "inspect", name).returncode != 0


def test_bitsandbytes_finds_its_cuda_library(image: Image) -> None:
    """bitsandbytes 0.41 looks for libcudart.so in many places and here finds none; it needs none of them.

    It takes the library of torch's CUDA, whose own needs torch has loaded from the wheels before. Without those wheels,
    or with BNB_CUDA_VERSION set, this fails.
    """
    if image.stack != "reference":
        pytest.skip("the set-up code asked here is bitsandbytes 0.41's")
    done = image.python(_AS_ON_AN_H100)
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
    assert told["chosen"] == "libbitsandbytes_cuda121.so", done.stderr
    assert told["loaded"].endswith("libbitsandbytes_cuda121.so"), done.stdout
    assert told["runtime"].endswith("nvidia/cuda_runtime/lib/libcudart.so.12")


@pytest.mark.parametrize("hidden", ["cuda_runtime", "cusparse"])
def test_bitsandbytes_needs_the_cuda_wheels(image: Image, hidden: str) -> None:
    """The cure taken away: one CUDA wheel hidden behind an empty folder."""
    if image.stack != "reference":
        pytest.skip("the set-up code asked here is bitsandbytes 0.41's")
    folder = f"/opt/venv/lib/python3.11/site-packages/nvidia/{hidden}/lib"
    assert "libbitsandbytes_cuda121.so" not in image.python(_AS_ON_AN_H100, f"--tmpfs={folder}").stdout


def test_triton_could_compile(image: Image) -> None:
    """Triton compiles a launcher with gcc and Python.h, and loads it from its cache."""
    code = """
import ctypes, pathlib, subprocess, sysconfig, os
folder = pathlib.Path(os.environ["TRITON_CACHE_DIR"]); folder.mkdir(parents=True, exist_ok=True)
(folder / "a.c").write_text("#include <Python.h>\\nint answer(void) { return 42; }")
include = sysconfig.get_paths()["include"]
subprocess.run(["gcc", "-shared", "-fPIC", f"-I{include}", "-o", folder / "a.so", folder / "a.c"], check=True)
print(ctypes.CDLL(str(folder / "a.so")).answer())
"""
    done = image.python(code)
    assert done.stdout.strip() == "42", done.stderr


def test_the_cache_volume_can_be_written_by_any_user(image: Image) -> None:
    name = f"{image.name}-mode"
    try:
        written = image.call(
            "run",
            "--rm",
            "--user=9876:9876",
            f"--volume={name}:/cache",
            image.tag,
            "sh",
            "-c",
            "mkdir /cache/huggingface",
        )
    finally:
        image.call("volume", "rm", "--force", name)
    assert written.returncode == 0, written.stderr


def test_no_secret_is_in_the_history_or_in_any_layer(image: Image) -> None:
    canary = os.environ["KIT_TEST_CANARY"]
    assert canary not in image.call("history", "--no-trunc", image.tag).stdout
    assert canary not in image.call("image", "inspect", image.tag).stdout
    # The archive holds each layer as an uncompressed tar.
    with subprocess.Popen([image.docker, "save", image.tag], stdout=subprocess.PIPE) as archive:
        assert archive.stdout is not None
        searched = subprocess.run(
            ["grep", "--quiet", "--text", "--fixed-strings", canary], stdin=archive.stdout, check=False
        )
        archive.stdout.close()
        archive.wait()
    assert searched.returncode == 1
    assert archive.returncode == 0


def layers(image: Image) -> list[str]:
    return list(json.loads(image.call("image", "inspect", image.tag).stdout)[0]["RootFS"]["Layers"])


def build(image: Image, *options: str, name: str = "") -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "scripts/kit",
        "image",
        "--stack",
        image.stack,
        "--base-image",
        os.environ["KIT_TEST_BASE"],
    ]
    command += ["--network", "host", *options, "build"]
    env = {**os.environ, "KIT_IMAGE": name or image.name}
    return subprocess.run(command, cwd=image.tree, env=env, capture_output=True, text=True, check=False, timeout=600)


def test_a_changed_script_replaces_one_layer(image: Image) -> None:
    before = layers(image)
    with (image.tree / "scripts" / "train.py").open("a") as file:
        file.write("# changed\n")
    assert build(image, "--flash-attn-wheel", "").returncode == 0
    after = layers(image)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


@pytest.fixture
def wheel(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A wheel with flash-attn's name and nothing in it, served here; and its checksum."""
    path = tmp_path / "flash_attn-2.3.3+kit-py3-none-any.whl"
    info = "flash_attn-2.3.3+kit.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flash_attn/__init__.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.3.3+kit\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()
        server.shutdown()


def test_a_flash_attention_wheel_with_another_checksum_is_refused(image: Image, wheel: tuple[str, str]) -> None:
    done = build(image, "--flash-attn-wheel", wheel[0], "--flash-attn-sha256", "0" * 64)
    assert done.returncode == 1
    assert "it was not installed" in done.stderr


def test_a_flash_attention_wheel_decides_which_attention_runs(image: Image, wheel: tuple[str, str]) -> None:
    other = dataclasses.replace(image, name=f"{image.name}-flash")
    done = build(image, "--flash-attn-wheel", wheel[0], "--flash-attn-sha256", wheel[1], name=other.name)
    assert done.returncode == 0, done.stderr
    said = other.python("from kit.image.start import attention_sentence; from kit.stacks.stack import installed_stack; "
                        "print(attention_sentence(installed_stack()))")  # fmt: skip
    image.call("image", "rm", "--force", other.tag)
    assert said.stdout.startswith("FlashAttention 2"), said.stderr


def test_the_demo_configuration_is_in_the_image(image: Image) -> None:
    assert image.run("test", "-f", f"/kit/{DEMO}").returncode == 0
