import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import ATTENTION, CURRENT, LOCKS, M4, REFERENCE, Lock, check_lock, packages, with_header
from tools import lock as lock_command

ALL = pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)


def text_of(lock: Lock) -> str:
    return (PROJECT_ROOT / lock.target).read_text(encoding="utf-8")


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@ALL
def test_every_lock_matches_its_source(lock: Lock) -> None:
    finding = check_lock(PROJECT_ROOT, lock)
    assert finding.severity == "ok", finding.message


@ALL
def test_every_package_is_pinned_with_hashes(lock: Lock) -> None:
    entries = re.findall(
        r"^(\S+)==\S+[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}[ \\]*\n)+)", text_of(lock), re.MULTILINE
    )
    assert {name for name, _ in entries} == packages(text_of(lock)).keys()
    assert entries


@ALL
def test_no_package_is_pinned_twice(lock: Lock) -> None:
    """Two markers may ask for two versions; whoever reads the pins, `make audit` first, would see one of them."""
    names = re.findall(r"^([^\s#=]+)==", text_of(lock), re.MULTILINE)
    assert sorted(names) == sorted(set(names))


@ALL
def test_no_lock_names_a_registry(lock: Lock) -> None:
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text_of(lock))


@pytest.mark.parametrize("lock", [REFERENCE, CURRENT, M4], ids=lambda lock: lock.name)
def test_flash_attention_is_left_to_the_image(lock: Lock) -> None:
    assert "flash-attn" not in packages(text_of(lock))


def test_the_reference_stack_is_exactly_what_was_asked() -> None:
    pins = packages(text_of(REFERENCE))
    asked = {
        "torch": "2.1.0",
        "transformers": "4.36.0",
        "peft": "0.7.0",
        "trl": "0.7.4",
        "bitsandbytes": "0.41.0",
        "accelerate": "0.25.0",
    }
    assert {name: pins[name] for name in asked} == asked


def test_an_upgrade_cannot_move_what_the_project_reproduces() -> None:
    """The lock is compiled from this file: what is pinned here stays, whatever `--upgrade` finds."""
    asked = (PROJECT_ROOT / REFERENCE.source).read_text(encoding="utf-8").splitlines()
    named = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")
    pinned = [line for line in asked if re.fullmatch(rf"(?:{'|'.join(named)})==[0-9.]+", line)]
    assert [line.partition("==")[0] for line in pinned] == list(named)


def test_what_breaks_the_reference_stack_stays_capped() -> None:
    pins = packages(text_of(REFERENCE))
    assert release(pins["numpy"]) < (2,)
    assert release(pins["pyarrow"]) < (25,)
    assert release(pins["setuptools"]) < (81,)
    assert "scipy" in pins


def test_linux_keeps_the_last_torch_for_cuda_12() -> None:
    assert packages(text_of(CURRENT))["torch"] == "2.10.0"


def test_the_mac_gets_the_torch_whose_mps_computes_rightly() -> None:
    assert packages(text_of(M4))["torch"] == "2.15.0"


def test_the_mac_gets_a_bitsandbytes_with_4_bit() -> None:
    assert release(packages(text_of(M4))["bitsandbytes"]) >= (0, 50)


def test_both_current_locks_agree_on_the_libraries_that_train() -> None:
    names = ("transformers", "peft", "trl", "bitsandbytes", "accelerate", "tokenizers", "safetensors")
    linux, mac = packages(text_of(CURRENT)), packages(text_of(M4))
    assert {name: linux[name] for name in names} == {name: mac[name] for name in names}


def test_flash_attention_4_changes_nothing_of_the_stack_it_is_added_to() -> None:
    added, stack = packages(text_of(ATTENTION)), packages(text_of(CURRENT))
    assert {"flash-attn-4", "nvidia-cutlass-dsl"} <= added.keys() - stack.keys()
    assert added["torch"] == stack["torch"]
    assert {name: stack[name] for name in added if name in stack} == {
        name: version for name, version in added.items() if name in stack
    }


# From here on: a made-up lock in an empty folder.


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    made = Lock("made", "made.in", "made.txt", ("--universal",), (("MACOSX_DEPLOYMENT_TARGET", "14.0"),))
    (tmp_path / made.source).write_text("iniconfig\n")
    (tmp_path / made.target).write_text(with_header(tmp_path, made, "iniconfig==2.3.1\n"))
    return made


def test_an_untouched_lock_passes(tmp_path: Path, lock: Lock) -> None:
    assert check_lock(tmp_path, lock).severity == "ok"


def test_a_changed_source_is_found(tmp_path: Path, lock: Lock) -> None:
    (tmp_path / lock.source).write_text("iniconfig>2\n")
    finding = check_lock(tmp_path, lock)
    assert (finding.severity, finding.fix, finding.where) == ("error", "make lock", "made.txt")
    assert "made.in or its compile options changed" in finding.message


@pytest.mark.parametrize("change", [{"options": ()}, {"environment": ()}], ids=str)
def test_changed_compile_options_are_found(tmp_path: Path, lock: Lock, change: dict[str, tuple[str, ...]]) -> None:
    assert check_lock(tmp_path, replace(lock, **change)).severity == "error"


def test_a_hand_edited_lock_is_found(tmp_path: Path, lock: Lock) -> None:
    target = tmp_path / lock.target
    target.write_text(target.read_text().replace("2.3.1", "2.3.0"))
    assert "edited by hand" in check_lock(tmp_path, lock).message


def test_a_lock_that_would_change_another_environment_is_found(tmp_path: Path, lock: Lock) -> None:
    added = replace(lock, beside="other.txt")
    (tmp_path / "other.txt").write_text("pluggy==1\niniconfig==2.3.1\n")
    assert check_lock(tmp_path, added).severity == "ok"
    (tmp_path / "other.txt").write_text("iniconfig==2.4.0\n")
    finding = check_lock(tmp_path, added)
    assert (finding.severity, finding.fix) == ("error", "make lock")
    assert "iniconfig is 2.3.1, and 2.4.0 in other.txt" in finding.message


@pytest.mark.parametrize("gone", ["source", "target"])
def test_a_missing_file_is_found(tmp_path: Path, lock: Lock, gone: str) -> None:
    (tmp_path / getattr(lock, gone)).unlink()
    assert "cannot be read" in check_lock(tmp_path, lock).message


def test_a_lock_without_stamps_is_found(tmp_path: Path, lock: Lock) -> None:
    (tmp_path / lock.target).write_text("iniconfig==2.3.1\n")
    assert check_lock(tmp_path, lock).severity == "error"


def test_compiling_starts_from_the_locked_versions_and_stamps_the_result(
    tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text(
        '#!/bin/sh\nwhile [ "$1" != --output-file ]; do shift; done\n'
        'grep -q iniconfig==2.3.1 "$2" && echo "macos==$MACOSX_DEPLOYMENT_TARGET" >"$2"\n'
    )
    uv.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    text = lock_command.compile_lock(tmp_path, uv, lock)
    (tmp_path / lock.target).write_text(text)
    assert packages(text) == {"macos": "14.0"}
    assert check_lock(tmp_path, lock).severity == "ok"


def test_a_lock_beside_another_is_held_to_that_ones_new_versions(
    tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = Lock("added", "made.in", "added.txt", (), beside=lock.target)
    uv = tmp_path / "uv"
    uv.write_text(
        '#!/bin/sh\nheld=none\nwhile [ "$1" != --output-file ]; do [ "$1" = --constraint ] && held=$2; shift; done\n'
        'if [ $held = none ]; then echo iniconfig==9; else cat "$held"; fi >"$2"\n'
    )
    uv.chmod(0o755)
    monkeypatch.setattr(lock_command, "LOCKS", (lock, added))
    monkeypatch.setattr(lock_command, "ensure_uv", lambda _root: uv)
    monkeypatch.chdir(tmp_path)
    lock_command.compile_all(tmp_path, [])
    assert packages((tmp_path / added.target).read_text()) == {"iniconfig": "9"}


def test_check_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert lock_command.main(["--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "passed"


def test_check_ends_with_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    lock_command.main(["--check"])
    assert capsys.readouterr().out.splitlines()[-1] == "locks: 9 ok"


def test_a_refresh_says_what_changed_lock_by_lock_and_writes_it_for_a_review(
    tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Lock("other", "made.in", "other.txt", ())
    (tmp_path / other.target).write_text("same==1\n")
    texts = {lock: "iniconfig==3.0.0\n", other: "same==1\n"}
    monkeypatch.setattr(lock_command, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(lock_command, "LOCKS", (lock, other))
    monkeypatch.setattr(lock_command, "ensure_uv", lambda _root: tmp_path / "uv")
    monkeypatch.setattr(lock_command, "compile_lock", lambda _root, _uv, one, *_: texts[one])
    monkeypatch.chdir(tmp_path)
    assert lock_command.main(["--upgrade", "--summary", "changes.md"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "made.txt: 1 to a new major version",
        "  ! iniconfig  2.3.1 → 3.0.0  (new major version)",
        "other.txt: unchanged",
    ]
    assert "| `iniconfig` | 2.3.1 | 3.0.0 | new major version |" in (tmp_path / "changes.md").read_text()
    assert lock_command.main(["--summary", str(tmp_path / "none" / "changes.md")]) == 2
