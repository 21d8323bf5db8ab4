"""List what is inside the image, Python and Debian packages alike, as a CycloneDX 1.5 document on stdout.

Run inside the image: ``python -m kit.image.sbom``, or make image-sbom. Standard library only, so that the image holds
no tool for it; CycloneDX's own generators list either Python's packages or the system's.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from typing import Any
from urllib.parse import quote


def python_components() -> list[dict[str, Any]]:
    """List the installed distributions, each once."""
    found: dict[str, dict[str, Any]] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-")
        version = distribution.version
        component: dict[str, Any] = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{quote(version)}",
        }
        licences = licences_of(distribution.metadata)
        found.setdefault(name, {**component, "licenses": licences} if licences else component)
    return [found[name] for name in sorted(found)]


def licences_of(declared: metadata.PackageMetadata) -> list[dict[str, Any]]:
    """Read the licence a distribution declares: an SPDX expression, or the names that older metadata has instead."""
    if "License-Expression" in declared:
        return [{"expression": declared["License-Expression"]}]
    classifiers = [line for line in declared.get_all("Classifier") or [] if line.startswith("License :: ")]
    names = [line.rpartition(" :: ")[2] for line in classifiers] or [declared["License"] or ""]
    # Some put the whole text there, which is no name.
    return [{"license": {"name": name}} for name in names if name and "\n" not in name]


def debian_components(listing: str, distribution: str) -> list[dict[str, Any]]:
    """Read ``dpkg-query``'s lines of name, version and architecture."""
    rows = [line.split("\t") for line in listing.splitlines() if line]
    return [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/{distribution}/{quote(name)}@{quote(version)}?arch={arch}",
        }
        for name, version, arch in sorted(rows)
    ]


def system_packages() -> list[dict[str, Any]]:
    """Ask dpkg; a base without it has none to list."""
    command = ["dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return debian_components(listing, _distribution())


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["ID"]
    except OSError:
        return "debian"


def document(components: list[dict[str, Any]], stack: str, revision: str) -> dict[str, Any]:
    """Wrap components in a CycloneDX document about the image."""
    # A bom-ref makes each component citable; the purl is unique.
    listed = [{**component, "bom-ref": component["purl"]} for component in components]
    image = {"type": "container", "name": "mistral-qlora-kit", "version": f"{stack}-{revision}", "bom-ref": "image"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": image},
        "components": listed,
    }


def main() -> int:
    """Print the document."""
    components = [*python_components(), *system_packages()]
    stack, revision = os.environ.get("KIT_STACK", "unknown"), os.environ.get("KIT_REVISION", "unknown")
    print(json.dumps(document(components, stack, revision), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
