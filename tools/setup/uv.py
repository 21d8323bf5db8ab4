"""The pinned uv: put under .cache/uv from its own hash-locked file, and run so that its failures can be explained.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from kit.cli.console import say
from kit.stacks.locks import STAMP, UV, digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Each would send an installation somewhere else than where it is asked to go.
_MISLEADING = ("PIP_PREFIX", "PIP_TARGET", "PIP_USER", "PYTHONHOME", "PYTHONPATH", "UV_PYTHON", "VIRTUAL_ENV")
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

_UNREACHABLE = "the package registry cannot be reached"

# What pip and uv say, and what it means to a person; the first match counts, so the more telling ones come first.
_DIAGNOSES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("certificate_verify_failed", "unknownissuer", "sslcertverificationerror", "invalid peer certificate"),
        "the package registry's certificate is not trusted here: usually a proxy signs with its own authority",
        "export SSL_CERT_FILE=/path/to/the-authority.pem, which uv and pip use; then run the command again",
    ),
    (
        ("no space left", "os error 28", "errno 28"),
        "the disk is full",
        "free some space, or move uv's package cache with UV_CACHE_DIR=/elsewhere; then run the command again",
    ),
    (
        (
            "read-only file system", "permission denied", "failed to initialize cache",
            "os error 13", "os error 30", "errno 13", "errno 30",
        ),
        "a folder cannot be written: the project's, or uv's package cache",
        "make both writable, or move the cache with UV_CACHE_DIR=/elsewhere",
    ),
    (
        ("hash mismatch", "do not match the hashes"),
        "a downloaded package is not the one that was locked, so it was not installed",
        "run the command again; if it fails again, the registry or a mirror serves other files than were locked",
    ),
    (
        (
            "name resolution", "name or service not known", "nodename nor servname", "dns error", "failed to lookup",
            "connection refused", "network is unreachable", "tcp connect error", "error sending request", "timed out",
            "newconnectionerror", "operation timed out", "could not connect", "failed to fetch", "proxyerror",
            "network connectivity is disabled", "no matching distribution found",
        ),
        _UNREACHABLE,
        "check the network (a proxy: HTTPS_PROXY; a mirror: PIP_INDEX_URL and UV_DEFAULT_INDEX), then run it again",
    ),
)  # fmt: skip


class SetupError(Exception):
    """What kept an environment from being made, in one sentence, and its fix.

    ``is_temporary`` says that the same attempt may succeed a little later.
    """

    def __init__(self, message: str, fix: str, *, is_temporary: bool = False) -> None:
        """Keep both parts apart, as ``kit.cli.console.fail`` shows them."""
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.is_temporary = is_temporary


def diagnose(output: str, fallback: str) -> SetupError:
    """Say what a failed pip or uv ran into, from what it printed."""
    lowered = output.lower()
    for signs, message, fix in _DIAGNOSES:
        if any(sign in lowered for sign in signs):
            return SetupError(message, fix, is_temporary=message == _UNREACHABLE)
    return SetupError(fallback, "read the lines above, then run the command again: it continues where it stopped")


def tool_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables pip and uv run with: nothing that leads them astray, one certificate bundle for all."""
    clean = {name: value for name, value in environ.items() if name not in _MISLEADING}
    bundle = next((clean[name] for name in _CERTIFICATE_VARIABLES if clean.get(name)), None)
    if bundle:
        clean.setdefault("SSL_CERT_FILE", bundle)  # what uv reads
        clean.setdefault("PIP_CERT", bundle)  # what every pip reads
        clean.setdefault("REQUESTS_CA_BUNDLE", bundle)  # what pip-audit reads
    clean["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    clean.setdefault("UV_HTTP_TIMEOUT", "180")  # a slow proxy may take long over a 700 MB wheel's first byte
    return clean


def base_python() -> str:
    """Return the interpreter under any virtual environment this runs in, which may be the one to be replaced."""
    return getattr(sys, "_base_executable", "") or sys.executable


def ensure_uv(root: Path) -> Path:
    """Return the pinned uv, installing it into a small environment of its own where it is not there yet.

    Raises:
        SetupError: It cannot be installed, with the reason and the fix.
    """
    home = root / ".cache" / "uv"
    program, stamp = home / "bin" / "uv", home / STAMP
    requirements = root / UV.target
    wanted = digest(requirements.read_text(encoding="utf-8"))
    if program.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return program
    say("Fetching uv, the installer (about 65 MB) → .cache/uv")
    shutil.rmtree(home, ignore_errors=True)
    env = tool_environment(os.environ)
    install = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
    for command, trouble in (
        ([base_python(), "-m", "venv", str(home)], f"{base_python()} cannot create a virtual environment"),
        ([*install, "--only-binary", ":all:", "-r", str(requirements)], "pip could not install uv"),
    ):
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            output = done.stdout + done.stderr
            say(output.strip(), "dim", lines=True)
            raise diagnose(output, trouble)
    stamp.write_text(wanted, encoding="utf-8")
    return program


def run_uv(uv: Path, arguments: list[str], fallback: str, variables: Mapping[str, str] | None = None) -> None:
    """Run uv with its own progress on the terminal; where it fails, say what it ran into, or else the fallback.

    uv draws progress only on a terminal, so its output is not read; a failure is asked for once more, quietly.

    Raises:
        SetupError: uv failed, with the reason and the fix.
    """
    env = {**tool_environment(os.environ), **(variables or {})}
    command = [str(uv), *arguments]
    if subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False).returncode == 0:
        return
    again = [*command, "--dry-run"] if arguments[:2] == ["pip", "sync"] else command
    env["UV_HTTP_RETRIES"] = "0"
    done = subprocess.run(again, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    raise diagnose(done.stderr if done.returncode else "", fallback)
