"""Print at a container's start: stack, attention, bitsandbytes' library, owner of the outputs.

Run by docker/entrypoint, inside the image: ``python -m kit.image.start``. Exit code 1 where nothing could be written.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kit.cli.console import say
from kit.cli.findings import Finding, error, exit_code, render
from kit.machine.one_device import use_judged_device
from kit.stacks.stack import Stack, installed_stack

_ASK = "--bitsandbytes"
_SECONDS = 120


def attention_sentence(stack: Stack) -> str:
    """Say which attention ``auto`` becomes on this stack, and what that means."""
    best = stack.attention_implementations[0]
    if best.startswith("flash_attention"):
        package = "flash-attn-3" if best == "flash_attention_3" else "flash-attn"
        return f"FlashAttention {best[-1]} ({package} {stack.versions[package]})"
    if best == "sdpa":
        return "torch's SDPA; flash-attn is not in this image and not needed"
    return (
        "eager, for rows of up to 2,048 tokens: flash-attn is not in this image, and transformers "
        f"{stack.versions['transformers']} has no SDPA for Mistral"
    )


def bitsandbytes_library() -> str:
    """Return the name of the native library bitsandbytes loads here: its CUDA library, or its CPU one without a GPU."""
    # In a process of its own: whatever importing it prints or breaks stays there.
    command = [sys.executable, "-m", "kit.image.start", _ASK]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"unknown: it did not load within {_SECONDS} s"
    lines = done.stdout.splitlines()
    return lines[-1] if done.returncode == 0 and lines else "unknown: it cannot be imported"


def check_writable(folder: Path, uid: int) -> list[Finding]:
    """Check that a run can write there."""
    if os.access(folder, os.W_OK | os.X_OK):
        return []
    message = f"{folder}/ is not writable for user {uid} of this container"
    fix = f"on the host: sudo chown -R {uid} {folder.name}, or start it with make, which runs it as your user"
    return [error("image.not_writable", message, fix)]


def main() -> int:
    """Say it on stderr."""
    if sys.argv[1:] == [_ASK]:
        from kit.environment.device_probe import native_library

        use_judged_device()
        print(native_library())
        return 0
    stack = installed_stack()
    say(f"image: {stack.name} stack, revision {os.environ.get('KIT_REVISION', 'unknown')}", "bold")
    say(f"attention: {attention_sentence(stack)}")
    say(f"bitsandbytes: {bitsandbytes_library()}")
    findings = check_writable(Path("outputs"), os.getuid())
    render(findings, sys.stderr)
    return exit_code(findings)


if __name__ == "__main__":
    raise SystemExit(main())
