import dataclasses
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.image.build import DEFAULT_BASE, SOURCES, Build, build_command, ca_bundle, remembered, source_digest
from kit.image.engine import Client

BUILD = Build("kit", "reference", (1001, 1002))
OLD = Client("/usr/bin/docker", (20, 10), has_buildx=False)


def test_the_build_gets_the_persons_id_and_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    command = build_command(PROJECT_ROOT, BUILD, OLD)
    assert {"KIT_UID=1001", "KIT_GID=1002", f"BASE_IMAGE={DEFAULT_BASE}"} <= set(command)
    assert not any("hf_secret" in word for word in command)


def test_a_certificate_bundle_is_a_secret_and_no_argument() -> None:
    command = build_command(PROJECT_ROOT, dataclasses.replace(BUILD, ca_bundle="/etc/ca.pem"), OLD)
    assert command[command.index("--secret") + 1] == "id=ca,src=/etc/ca.pem"
    assert not any("ca.pem" in word for word in command if word.isupper())


def test_buildx_is_asked_to_hand_the_image_over() -> None:
    command = build_command(PROJECT_ROOT, BUILD, Client("docker", (28, 2), has_buildx=True))
    assert command[1:4] == ["buildx", "build", "--load"]
    assert build_command(PROJECT_ROOT, BUILD, OLD)[1] == "build"


@pytest.mark.parametrize(
    "change", [{"stack": "current"}, {"user": (1, 1)}, {"base_image": "x"}, {"flash_attn_wheel": "y"}]
)
def test_another_argument_is_another_image(change: dict[str, object]) -> None:
    assert source_digest(PROJECT_ROOT, dataclasses.replace(BUILD, **change)) != source_digest(PROJECT_ROOT, BUILD)  # type: ignore[arg-type]


def test_the_revision_and_the_network_make_no_other_image() -> None:
    same = dataclasses.replace(BUILD, revision="abc", network="host", ca_bundle="/etc/ca.pem")
    assert source_digest(PROJECT_ROOT, same) == source_digest(PROJECT_ROOT, BUILD)


def test_every_source_is_there_and_the_engine_gets_it() -> None:
    assert [name for name in SOURCES if not (PROJECT_ROOT / name).exists()] == []
    ignore = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    assert ignore[1] == "*"
    let_through = {line[1:].removesuffix("/*.txt") for line in ignore if line.startswith("!")}
    assert let_through == set(SOURCES) - {".dockerignore", "docker/Dockerfile"}


def test_choices_of_the_last_build_last() -> None:
    labels = {"kit.flash-attn": "", "org.opencontainers.image.base.name": "mine"}
    asked = dataclasses.replace(BUILD, flash_attn_wheel="default")
    assert remembered(asked, labels, wheel_given=False) == dataclasses.replace(BUILD, base_image="mine")
    given = remembered(dataclasses.replace(asked, base_image="new"), labels, wheel_given=True)
    assert (given.base_image, given.flash_attn_wheel) == ("new", "default")


def test_the_certificate_bundle_the_machine_names_is_taken(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    assert ca_bundle({"SSL_CERT_FILE": "/nowhere.pem", "PIP_CERT": str(bundle)}) == str(bundle)
    assert ca_bundle({}) == ""
