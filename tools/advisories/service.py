"""Ask a vulnerability service about a lock, through pip-audit from an environment of its own.

pip-audit counts a package that its service does not know as passed, and says "No known vulnerabilities found" where
the service knew none of them: behind a mirror without advisories that is every package. Here it counts as unchecked.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.stacks.locks import AUDIT
from tools.advisories.answer import Answer, Vulnerability, canonical
from tools.setup.tool import ensure_tool
from tools.setup.uv import tool_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.stacks.locks import Lock

SERVICES = ("pypi", "osv")
_SECONDS = 900  # for one lock of about a hundred packages, each a request; the second lock's are mostly cached
_REQUEST_SECONDS = "15"
_UNREACHABLE = ("ConnectionError", "Could not connect", "Max retries", "NameResolution", "timed out", "ProxyError")
_LONGEST_REASON = 200


def ensure_pip_audit(root: Path) -> Path:
    """Return the pinned pip-audit, installing it where it is not there yet.

    Raises:
        SetupError: It cannot be installed, with the reason and the fix.
    """
    return ensure_tool(root, AUDIT, "pip-audit", size="40 MB")


def ask(program: Path, lock: Lock, pins: Mapping[str, str], service: str) -> Answer:
    """Ask the service about every package of a lock.

    Each is asked about as it is pinned, without markers: a lock for a Mac is audited on Linux too.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()), encoding="utf-8")
        command = [str(program), "--requirement", str(requirements), "--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", service, "--timeout", _REQUEST_SECONDS]
        command += ["--format", "json", "--aliases", "on", "--desc", "off", "--progress-spinner", "off"]
        try:
            done = subprocess.run(
                command,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
            out, reason = done.stdout, _last_words(done.stderr)
        except subprocess.TimeoutExpired:
            out, reason = "", f"no answer within {_SECONDS // 60} minutes"
        except OSError as exc:
            out, reason = "", f"pip-audit does not start: {exc.strerror}"
    return _read(out, reason, lock, pins, service)


def _environment() -> dict[str, str]:
    environment = tool_environment(os.environ)
    if environment.get("SSL_CERT_FILE"):
        environment.setdefault("REQUESTS_CA_BUNDLE", environment["SSL_CERT_FILE"])
    return environment


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = lines[-1].rpartition("pip_audit._cli:")[2] if lines else "it said nothing"
    is_unreachable = any(sign in words for sign in _UNREACHABLE)
    return "the service cannot be reached" if is_unreachable else words[:_LONGEST_REASON]


def _read(out: str, reason: str, lock: Lock, pins: Mapping[str, str], service: str) -> Answer:
    """Read pip-audit's JSON. What it does not mention was not checked."""
    found: list[Vulnerability] = []
    unchecked = {canonical(name): reason for name in pins}
    try:
        entries = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        entries = []
    for entry in entries:
        package = canonical(str(entry.get("name", "")))
        if entry.get("skip_reason"):
            unchecked[package] = "the service does not know it, or has no advisories to give"
        elif "vulns" in entry:
            unchecked.pop(package, None)
            found += [_vulnerability(package, pins.get(package, "?"), item) for item in entry["vulns"]]
        else:
            unchecked[package] = "the service's answer does not mention it"
    return Answer(service, lock.name, lock.target, pins, tuple(found), unchecked)


def _vulnerability(package: str, version: str, item: Mapping[str, Any]) -> Vulnerability:
    return Vulnerability(
        package,
        version,
        str(item.get("id", "?")),
        frozenset(str(alias) for alias in item.get("aliases") or []),
        tuple(str(fixed) for fixed in item.get("fix_versions") or []),
    )
