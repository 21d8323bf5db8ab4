"""Copy an adapter so that every peft since 0.7.0 loads it, or refuse where that would change its answers.

Run as:
    python scripts/kit portable-adapter FOLDER COPY
    python scripts/kit portable-adapter outputs/demo/checkpoints/checkpoint-200 models/demo-200

A newer peft writes fields into adapter_config.json that an older one refuses. Those that only describe how the adapter
was made are left out and listed; those that change its answers are refused. The weights are copied unchanged.
The adapter/ of a run is portable already. Exit codes: 0 copied, 2 refused or wrong use.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kit.adapter.portable import make_portable
from kit.cli.console import fail
from kit.cli.screen import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="adapter directory, with adapter_config.json")
    parser.add_argument("copy", type=Path, metavar="COPY", help="new directory to write")


def run(options: argparse.Namespace) -> int:
    try:
        portable = make_portable(options.folder.expanduser(), options.copy.expanduser())
    except FileExistsError:
        return fail(f"{options.copy}: already exists", "name a new folder")
    except OSError as exc:
        return fail(f"{options.copy}: cannot be written to ({exc.strerror})", "name another place")
    for remark in portable.remarks:
        print(one_line(remark))
    print(f"portable: {one_line(options.copy)}")
    return 0
