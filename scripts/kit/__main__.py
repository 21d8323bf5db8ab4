"""The one command line: ``python scripts/kit COMMAND …``, or with scripts/ on the path ``python -m kit COMMAND …``.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

if not __package__:  # started by its folder, which would have its rooms found as modules of their own
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from kit.cli.command import run_main
from kit.cli.console import fail, paint
from kit.commands import COMMANDS, GROUPS, start


def main() -> None:
    """Show the listing, or run the command that is named."""
    name, *argv = sys.argv[1:] or ["--help"]
    if name == "--debug" and argv:
        name, argv = argv[0], ["--debug", *argv[1:]]
    if name in COMMANDS:
        start(name, argv)
    run_main(lambda: _list() if name in {"-h", "--help", "help"} else _refuse(name))


def _list() -> int:
    print("kit COMMAND [options], as: python scripts/kit COMMAND …\n\nkit COMMAND --help says more about each.")
    for title, commands in GROUPS.items():
        print(f"\n{paint(title, 'bold', stream=sys.stdout)}")
        for command in commands:
            print(f"  {command.name:<21}{command.about}")
    return 0


def _refuse(name: str) -> int:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    fix = f"did you mean {near[0]}? " if near else ""
    return fail(f"{name}: there is no such command", f"{fix}python scripts/kit --help lists them")


if __name__ == "__main__":
    main()
