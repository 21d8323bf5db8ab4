"""Install flash-attn in the image from one prebuilt wheel, or say why there is none. Called by docker/Dockerfile.

Standard library only. Never compiles: what is not a wheel for this Python and this torch is refused.
Exit codes: 0 installed, or left out on purpose; 1 the wheel cannot be had, is another one, or does not fit.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LEAVE_OUT = "build with FLASH_ATTN_WHEEL= (empty) to leave flash-attn out"


class WheelError(Exception):
    """What is wrong with the wheel, in one sentence, with the fix."""


def file_name(address: str) -> str:
    """Return the wheel's own name: the last part of its address."""
    return unquote(Path(urlsplit(address).path).name)


def incompatibility(name: str, python: tuple[int, int], torch: str) -> str:
    """Say in what a wheel does not fit, from its name; empty where it does.

    Release wheels are named ``flash_attn-2.3.3+cu122torch2.1cxx11abiFALSE-cp311-cp311-linux_x86_64.whl``.
    """
    if not name.endswith(".whl"):
        return f"{name or 'the URL'} is not a wheel"
    if not name.startswith("flash_attn-"):
        return f"{name} is not flash-attn"
    tag = f"cp{python[0]}{python[1]}"
    if f"-{tag}-" not in name and "-py3-" not in name:
        return f"{name} is not for Python {python[0]}.{python[1]} ({tag})"
    wanted = "torch" + ".".join(torch.split(".")[:2])
    if "torch" in name and f"{wanted}cxx" not in name and f"{wanted}-" not in name:
        return f"{name} is not for torch {torch}"
    return ""


def fetch(address: str, target: Path) -> str:
    """Download to ``target`` and return its SHA-256 in hexadecimal.

    Raises:
        WheelError: It cannot be downloaded.
    """
    if urlsplit(address).scheme not in {"http", "https", "file"}:
        raise WheelError(f"{address}: only http, https and file URLs are accepted; {_LEAVE_OUT}")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(address, timeout=180) as source, target.open("wb") as file:  # noqa: S310 - see above
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
    except (OSError, urllib.error.URLError) as exc:
        raise WheelError(
            f"{address} cannot be downloaded: {exc}; name another FLASH_ATTN_WHEEL, or {_LEAVE_OUT}"
        ) from exc
    return digest.hexdigest()


def install(uv: Path, address: str, expected: str) -> str:
    """Download, check and install the wheel; return a sentence on what was done.

    Raises:
        WheelError: It does not fit, cannot be had, or is another one than was asked for.
    """
    name = file_name(address)
    problem = incompatibility(name, sys.version_info[:2], metadata.version("torch"))
    if problem:
        raise WheelError(f"FLASH_ATTN_WHEEL: {problem}; name a matching one, or {_LEAVE_OUT}")
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / name
        found = fetch(address, wheel)
        if expected and found != expected.lower():
            raise WheelError(
                f"{name} has the SHA-256 {found}, and FLASH_ATTN_SHA256 is {expected}: it was not installed"
            )
        # Its dependencies (torch, einops, packaging) are in the lock; --no-deps keeps it from changing any.
        command = [str(uv), "pip", "install", "--quiet", "--no-deps", "--no-cache", "--python", sys.executable]
        if subprocess.run([*command, str(wheel)], check=False).returncode != 0:
            raise WheelError(f"{name} could not be installed: see the lines above; {_LEAVE_OUT}")
    checked = "as asked for" if expected else f"NOT CHECKED: pass FLASH_ATTN_SHA256={found} the next time"
    return f"{name} is installed; its SHA-256 is {found}, {checked}"


def main(argv: list[str] | None = None) -> int:
    """Run the step."""
    parser = argparse.ArgumentParser(description="Install flash-attn from a prebuilt wheel.")
    parser.add_argument("--uv", type=Path, required=True)
    parser.add_argument("--wheel", default="", help="its URL; empty leaves flash-attn out")
    parser.add_argument("--sha256", default="", help="its checksum; empty prints the one found")
    options = parser.parse_args(argv)
    if not options.wheel:
        print("flash-attn: left out (FLASH_ATTN_WHEEL is empty)", file=sys.stderr)
        return 0
    try:
        print(f"flash-attn: {install(options.uv, options.wheel, options.sha256)}", file=sys.stderr)
    except WheelError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
