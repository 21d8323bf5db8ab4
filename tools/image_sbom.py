"""List the Python packages of an image as a CycloneDX document: its lock, and flash-attn's wheel.

Run as:
    make image-sbom STACK=current                      writes outputs/sbom-current.cdx.json
    python3 -m tools.image_sbom --stack reference --output FILE

Neither licences nor Debian's packages are in it: ask the built image for those (docker sbom, syft).
Exit codes: 0 written, 2 cyclonedx-py could not be installed or did not list the packages.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.command import command_parser, run_main
from kit.cli.console import fail, say
from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.screen import one_line
from kit.files.json_files import write_json
from kit.stacks.locks import SBOM
from kit.stacks.registry import GENERATIONS, stack_run_on
from tools.setup.tool import ensure_tool
from tools.setup.uv import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = command_parser(__doc__, "image_sbom")
    parser.add_argument("--stack", choices=tuple(GENERATIONS), default=stack_run_on("h100"))
    parser.add_argument("--flash-attn-wheel", help="the wheel the image is built with; empty for none")
    parser.add_argument("--output", type=Path, help="the file to write")
    options = parser.parse_args(argv)
    try:
        program = ensure_tool(PROJECT_ROOT, SBOM, "cyclonedx-py", size="30 MB")
    except SetupError as exc:
        return fail(exc.message, exc.fix)
    locked = (PROJECT_ROOT / "locks" / f"{options.stack}-linux-x86_64.txt").read_text(encoding="utf-8")
    wheel = (
        GENERATIONS[options.stack].flash_attn_wheel if options.flash_attn_wheel is None else options.flash_attn_wheel
    )
    asked = f"{locked}\nflash-attn @ {wheel}\n" if wheel else locked
    project = str(PROJECT_ROOT / "pyproject.toml")
    command = [str(program), "requirements", "--output-reproducible", "--pyproject", project, "-"]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    if done.returncode:
        say(done.stderr.strip(), "dim", lines=True)
        return fail("cyclonedx-py did not list the lock's packages: its own words are above", "make lock ARGS=--check")
    document = json.loads(done.stdout)
    target = options.output or PROJECT_ROOT / "outputs" / f"sbom-{options.stack}.cdx.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, document)
    print(one_line(f"{target}: {len(document['components'])} Python packages of the {options.stack} stack's image"))
    return 0


if __name__ == "__main__":
    run_main(main)
