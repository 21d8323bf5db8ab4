"""What differs between a run's provenance and these is named, each with what it does to the bits."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.machine import facts as machines
from kit.runs import provenance as module
from kit.runs.provenance import compare_provenance, provenance_here, reasons_for_other_bits

if TYPE_CHECKING:
    from kit.cli.findings import Finding

H100 = json.loads(json.dumps(asdict(machines.read(PROJECT_ROOT / "tests/fixtures/machines/h100_80gb.json"))))
HERE: dict[str, Any] = {
    "platform": "cpu",
    "machine": {"system": "Linux", "arch": "x86_64", "cpu_model": "AMD EPYC"},
    "stack": "current",
    "python": "3.11.7",
    "packages": {"torch": "2.10.0", "Jinja2": "3.1.6", "nvidia-cublas-cu12": "12.8.4", "nvidia-ml-py": "13.0"},
    "lock": {"name": "locks/current-linux-x86_64.txt", "sha256": "ab" * 32},
    "image": None,
    "git_revision": "a" * 40,
    "git_dirty": False,
}


def _differing(**then: Any) -> list[Finding]:
    return [finding for finding in compare_provenance({**HERE, **then}, HERE) if finding.severity != "ok"]


def _packages(**changes: str | None) -> dict[str, str]:
    changed = {**HERE["packages"], **{name.replace("_", "-"): version for name, version in changes.items()}}
    return {name: version for name, version in changed.items() if version}


def test_the_same_provenance_must_give_the_same_bits_on_a_cpu() -> None:
    assert _differing() == []
    assert reasons_for_other_bits([], "cpu", "cpu") == []


@pytest.mark.parametrize("platforms", [("h100", "h100"), ("cpu", "h100"), ("m4", "m4"), (None, "cpu")])
def test_no_gpu_is_held_to_bits(platforms: tuple[str | None, str]) -> None:
    assert reasons_for_other_bits([], *platforms)


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ({"stack": "reference"}, "stack is current, was reference"),
        ({"platform": "h100", "machine": HERE["machine"]}, "platform is cpu, was h100"),
        ({"machine": {**HERE["machine"], "cpu_model": "Intel Xeon"}}, "cpu model is AMD EPYC, was Intel Xeon"),
        ({"packages": _packages(torch="2.9.0")}, "torch is 2.10.0, was 2.9.0"),
        ({"packages": _packages(nvidia_cublas_cu12="12.1")}, "nvidia-cublas-cu12 is 12.8.4, was 12.1"),
        ({"packages": _packages(flash_attn="2.3.3")}, "flash-attn is missing, was 2.3.3"),
        ({"git_revision": "b" * 40}, "the code is revision aaaaaaaaaaaa…, was bbbbbbbbbbbb…"),
        ({"git_dirty": True, "git_diff_sha256": "1"}, "no uncommitted change, was aaaaaaaaaaaa… with unc"),
        ({"git_revision": f"{'a' * 40}-dirty"}, "with no uncommitted change, was"),
        ({"git_revision": None}, "the receipt has no revision"),
    ],
)  # fmt: skip
def test_what_can_change_bits_is_a_warning_and_a_reason(then: dict[str, Any], told: str) -> None:
    found = _differing(**then)
    assert [finding.severity for finding in found if told in finding.message] == ["warning"]
    assert [reason for reason in reasons_for_other_bits(found, "cpu", "cpu") if told in reason]


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ({"packages": _packages(Jinja2="3.1.5", wheel="1")}, "jinja2 is 3.1.6, was 3.1.5; wheel is missing"),
        ({"packages": _packages(nvidia_ml_py="12.0")}, "nvidia-ml-py is 13.0, was 12.0"),
        ({"python": "3.11.9"}, "python is 3.11.7, was 3.11.9"),
        ({"lock": {"name": "locks/current-linux-x86_64.txt", "sha256": "cd" * 32}}, "is not the run's lock"),
        ({"image": {"id": "sha256:beef"}}, "image is none, was sha256:beef"),
    ],
)  # fmt: skip
def test_what_computes_nothing_is_a_warning_and_no_reason(then: dict[str, Any], told: str) -> None:
    found = _differing(**then)
    assert [finding.severity for finding in found if told in finding.message] == ["warning"]
    assert reasons_for_other_bits(found, "cpu", "cpu") == []


def test_packages_of_another_stack_are_one_warning_that_names_each() -> None:
    (found,) = _differing(packages=_packages(torch="2.1.0", peft="0.7.0"))
    assert found.message == "2 packages that compute differ: peft is missing, was 0.7.0; torch is 2.10.0, was 2.1.0"


def test_a_package_is_the_same_however_its_name_is_written() -> None:
    assert _differing(packages={**_packages(Jinja2=None), "jinja2": "3.1.6"}) == []


def test_another_revision_with_the_same_scripts_is_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "scripts_tree", {"b" * 40: "tree", "HEAD": "tree"}.get)
    assert _differing(git_revision="b" * 40) == []


def test_a_revision_is_never_handed_to_git_as_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_revision: str) -> str:
        raise AssertionError

    monkeypatch.setattr(module, "scripts_tree", asked)
    assert [finding.severity for finding in _differing(git_revision="--upload-pack=x")] == ["warning"]


def test_uncommitted_changes_count_by_what_they_change() -> None:
    dirty = {**HERE, "git_dirty": True, "git_diff_sha256": "1"}
    same, other = (
        compare_provenance({**dirty, "git_diff_sha256": digest}, dirty)[0] for digest in ("1", "2")
    )  # fmt: skip
    assert (same.severity, same.message) == ("ok", "revision aaaaaaaaaaaa…, with the same changes")
    assert (other.severity, other.message.endswith("with uncommitted changes, but others")) == ("warning", True)


def test_on_a_gpu_its_name_and_its_driver_are_compared() -> None:
    other = {**H100, "nvidia": {**H100["nvidia"], "driver_version": "600.1"}}
    then, here = ({**HERE, "platform": "h100", "machine": machine} for machine in (H100, other))
    (found,) = (finding for finding in compare_provenance(then, here) if finding.severity != "ok")
    assert found.id == "reproduce.driver_version"
    assert "GPU: NVIDIA H100" in "".join(finding.message for finding in compare_provenance(then, here))


def test_what_an_old_receipt_does_not_say_is_skipped() -> None:
    found = compare_provenance({"packages": HERE["packages"], "git_revision": "a" * 40}, HERE)
    assert {finding.id for finding in found if finding.severity == "skipped"} >= {"reproduce.lock", "reproduce.stack"}


def test_provenance_here_has_the_form_of_a_receipts() -> None:
    here = provenance_here()
    assert {"platform", "machine", "stack", "python", "packages", "lock", "locks", "image", "git_revision"} <= set(here)
    assert json.loads(json.dumps(here)) == here
    assert {finding.severity for finding in compare_provenance(here, here)} <= {"ok", "skipped"}
