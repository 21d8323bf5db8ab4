import json
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.stacks.locks import REFERENCE, packages
from kit.stacks.reference import FLASH_ATTN_WHEEL
from tools import image_sbom


@pytest.mark.slow
def test_the_list_of_contents_names_every_package_of_the_lock_with_its_hashes(tmp_path: Path) -> None:
    target = tmp_path / "new" / "sbom.json"
    assert image_sbom.main(["--stack", "reference", "--output", str(target)]) == 0
    document = json.loads(target.read_text(encoding="utf-8"))
    listed = {item["name"]: item for item in document["components"]}
    (wheel,) = listed.pop("flash-attn")["externalReferences"]
    assert wheel["url"] == FLASH_ATTN_WHEEL
    locked = packages((PROJECT_ROOT / REFERENCE.target).read_text(encoding="utf-8"))
    assert {name: item["version"] for name, item in listed.items()} == locked
    assert all(item["purl"] == f"pkg:pypi/{name}@{item['version']}" for name, item in listed.items())
    assert all(item["externalReferences"][0]["hashes"] for item in listed.values())


def test_a_list_of_contents_that_could_not_be_made_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, target = tmp_path / "cyclonedx-py", tmp_path / "sbom.json"
    program.write_text("#!/bin/sh\ncat >/dev/null\necho 'no such line' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(image_sbom, "ensure_tool", lambda *_, **__: program)
    assert image_sbom.main(["--output", str(target)]) == 2
    assert "no such line" in capsys.readouterr().err
    assert not target.exists()
