from email.message import Message
from importlib import metadata

import pytest

from kit.image.sbom import debian_components, document, licences_of, python_components


def test_every_installed_distribution_is_listed_once() -> None:
    names = [component["name"] for component in python_components()]
    assert len(names) == len(set(names))
    assert {"pytest", "pyyaml"} <= set(names)


def test_a_python_package_is_named_as_its_registry_names_it() -> None:
    version = metadata.version("pytest")
    (found,) = [component for component in python_components() if component["name"] == "pytest"]
    assert found["purl"] == f"pkg:pypi/pytest@{version}"


def test_a_debian_package_keeps_its_epoch_and_architecture() -> None:
    (found,) = debian_components("gcc\t4:12.2.0-3\tamd64\n", "debian")
    assert (found["version"], found["purl"]) == ("4:12.2.0-3", "pkg:deb/debian/gcc@4%3A12.2.0-3?arch=amd64")


def test_the_document_says_which_image_it_is_about() -> None:
    made = document([{"type": "library", "name": "a", "version": "1", "purl": "pkg:pypi/a@1"}], "current", "abc")
    assert (made["bomFormat"], made["metadata"]["component"]["version"]) == ("CycloneDX", "current-abc")
    assert [item["bom-ref"] for item in made["components"]] == ["pkg:pypi/a@1"]


@pytest.mark.parametrize(
    ("headers", "licences"),
    [
        ([("License-Expression", "MIT"), ("License", "see LICENSE")], [{"expression": "MIT"}]),
        (
            [("License", "Apache"), ("Classifier", "License :: OSI Approved :: Apache Software License")],
            [{"license": {"name": "Apache Software License"}}],
        ),
        ([("License", "BSD-3-Clause"), ("Classifier", "Topic :: Software")], [{"license": {"name": "BSD-3-Clause"}}]),
        ([("License", "Copyright (c) …\n  all of it")], []),
        ([], []),
    ],
)
def test_a_licence_is_read_from_whatever_declares_it(
    headers: list[tuple[str, str]], licences: list[dict[str, object]]
) -> None:
    declared = Message()
    for name, value in headers:
        declared[name] = value
    assert licences_of(declared) == licences
