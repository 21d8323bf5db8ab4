import os
from pathlib import Path

import pytest

from kit.image import container
from kit.image.container import Service, container_user, gpu_variable, prepare_folders, run_command


@pytest.mark.parametrize(
    ("host", "environ", "is_rootless", "expected"),
    [
        ((1001, 1002), {}, False, (1001, 1002)),
        ((0, 0), {"SUDO_UID": "1001", "SUDO_GID": "1002"}, False, (1001, 1002)),
        ((0, 0), {}, False, (1000, 1000)),
        ((0, 0), {"SUDO_UID": "0", "SUDO_GID": "0"}, False, (1000, 1000)),
        ((1001, 1002), {}, True, (0, 0)),
    ],
)
def test_the_container_runs_as_the_person_and_never_as_the_hosts_root(
    host: tuple[int, int], environ: dict[str, str], is_rootless: bool, expected: tuple[int, int]
) -> None:
    assert container_user(host, environ, is_rootless=is_rootless) == expected


def test_mounted_folders_are_made_before_the_engine_would_make_them_as_root(tmp_path: Path) -> None:
    prepare_folders(tmp_path, (os.getuid() or 1000, os.getgid() or 1000))
    assert {path.name for path in tmp_path.iterdir()} == {"configs", "data", "models", "outputs", "measurements"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
def test_root_gives_away_what_the_container_writes_and_nothing_else(tmp_path: Path) -> None:
    prepare_folders(tmp_path, (1000, 1000))
    assert {path.name: path.stat().st_uid for path in tmp_path.iterdir()} == {
        "configs": 0, "data": 0, "models": 1000, "outputs": 1000, "measurements": 1000,
    }  # fmt: skip


def test_only_a_service_with_a_gpu_asks_for_one(tmp_path: Path) -> None:
    plain = run_command(tmp_path, ["docker", "compose"], Service("detect"))
    with_gpu = run_command(tmp_path, ["docker", "compose"], Service("train", ("c.yaml", "a.b=1"), with_gpu=True))
    assert str(tmp_path / "docker" / "compose.gpu.yaml") not in plain
    assert str(tmp_path / "docker" / "compose.gpu.yaml") in with_gpu
    assert with_gpu[-3:] == ["train", "c.yaml", "a.b=1"]


def test_a_terminal_is_asked_for_only_where_a_person_looks(tmp_path: Path) -> None:
    assert "-T" in run_command(tmp_path, ["docker-compose"], Service("train"))
    assert "-T" not in run_command(tmp_path, ["docker-compose"], Service("train", has_terminal=True))


def test_a_container_can_be_named_so_that_signals_find_it(tmp_path: Path) -> None:
    named = run_command(tmp_path, ["docker-compose"], Service("train", ("c.yaml",), container="kit-train-1"))
    assert named[-4:] == ["--name", "kit-train-1", "train", "c.yaml"]
    assert "--name" not in run_command(tmp_path, ["docker-compose"], Service("train"))


@pytest.mark.parametrize(
    ("environ", "written", "expected"),
    [
        ({}, "", {"KIT_GPU": "GPU-judged"}),
        ({}, "#KIT_GPU=0\nHF_TOKEN=x\n", {"KIT_GPU": "GPU-judged"}),
        ({}, "KIT_GPU=3\n", {}),
        ({"KIT_GPU": "2"}, "", {}),
    ],
)
def test_the_container_gets_the_gpu_that_is_judged_on_the_host_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], written: str, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(container, "judged_gpu_name", lambda: "GPU-judged")
    (tmp_path / ".env").write_text(written, encoding="utf-8")
    assert gpu_variable(tmp_path, environ) == expected
