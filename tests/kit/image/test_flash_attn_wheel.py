import hashlib
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.image import flash_attn_wheel
from kit.image.flash_attn_wheel import WheelError, file_name, incompatibility, install
from kit.stacks.locks import packages
from kit.stacks.reference import FLASH_ATTN_WHEEL

RELEASE = "flash_attn-2.3.3+cu122torch2.1cxx11abiFALSE-cp311-cp311-linux_x86_64.whl"


def test_the_default_wheel_fits_the_reference_lock() -> None:
    locked = packages((PROJECT_ROOT / "locks" / "reference-linux-x86_64.txt").read_text())
    assert incompatibility(file_name(FLASH_ATTN_WHEEL), (3, 11), locked["torch"]) == ""


@pytest.mark.parametrize("name", ["reference", "current"])
def test_what_flash_attention_imports_is_locked(name: str) -> None:
    locked = packages((PROJECT_ROOT / "locks" / f"{name}-linux-x86_64.txt").read_text())
    assert {"einops", "packaging", "torch"} <= locked.keys()


@pytest.mark.parametrize(
    ("name", "torch", "reason"),
    [
        ("flash-attn-2.3.3.tar.gz", "2.1.0", "not a wheel"),
        ("torch-2.1.0-cp311-cp311-linux_x86_64.whl", "2.1.0", "not flash-attn"),
        (RELEASE.replace("cp311", "cp310"), "2.1.0", "not for Python 3.11"),
        (RELEASE, "2.10.0+cu128", "not for torch 2.10.0"),
        (RELEASE.replace("torch2.1", "torch2.10"), "2.1.0", "not for torch 2.1.0"),
    ],
)
def test_a_wheel_for_something_else_is_refused(name: str, torch: str, reason: str) -> None:
    assert reason in incompatibility(name, (3, 11), torch)


def test_an_address_may_be_escaped() -> None:
    assert file_name(f"https://example.org/v2/{RELEASE.replace('+', '%2B')}?x=1") == RELEASE


def test_an_empty_address_leaves_it_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert flash_attn_wheel.main(["--uv", "uv"]) == 0
    assert "left out" in capsys.readouterr().err


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(flash_attn_wheel.metadata, "version", lambda _: "2.1.0")
    path = tmp_path / RELEASE
    path.write_bytes(b"wheel")
    return path


def test_another_checksum_is_never_installed(served: Path, tmp_path: Path) -> None:
    with pytest.raises(WheelError, match="was not installed"):
        install(tmp_path / "no-uv-is-needed", served.as_uri(), "0" * 64)


def test_without_a_checksum_the_one_found_is_printed(served: Path) -> None:
    assert hashlib.sha256(b"wheel").hexdigest() in install(Path("/bin/true"), served.as_uri(), "")


def test_a_wheel_that_cannot_be_had_names_the_way_out(served: Path, tmp_path: Path) -> None:
    served.unlink()
    with pytest.raises(WheelError, match="FLASH_ATTN_WHEEL= "):
        install(tmp_path, served.as_uri(), "")


def test_installing_it_changes_nothing_that_is_locked(served: Path, tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$*" >"{tmp_path}/called"\n')
    uv.chmod(0o755)
    install(uv, served.as_uri(), hashlib.sha256(b"wheel").hexdigest())
    assert {"--no-deps", "--no-cache"} <= set((tmp_path / "called").read_text().split())
