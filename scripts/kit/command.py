"""How a command begins and ends: its parser from its docstring, a mistake as one sentence with its fix."""

from __future__ import annotations

import argparse

from kit.console import fail


def command_parser(docstring: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser that shows a command's docstring: its first line before the options, the rest after them.

    Args:
        docstring: The command's ``__doc__``.
        name: The command as it is typed, such as ``train.py``.
    """
    first, _, rest = (docstring or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=name, description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def found_and_fix(mistake: Exception) -> tuple[str, str]:
    """Part the text of a mistake into what was found and, behind its last semicolon, the fix."""
    found, _, fix = str(mistake).rpartition("; ")
    return found, fix


def refuse(mistake: Exception) -> int:
    """Say a mistake and its fix on stderr; return 2, the exit code of a command used wrongly."""
    return fail(*found_and_fix(mistake))
