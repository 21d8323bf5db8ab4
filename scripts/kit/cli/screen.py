"""Text as a terminal may be given it: what it would act on, and what hides or reorders text, is written out.

A model's answer, a row, a name or a receipt of somebody else's is data. It cannot move the cursor, recolour or hide
what stands beside it, begin a line of its own or have the terminal answer. Standard library only, for Python 3.9 on.
"""

from __future__ import annotations

import re

# C0 but for tab and newline, DEL, C1; what hides or reorders text: marks of direction, line separators, invisible
# operators, tags; halves of characters. Indic scripts, Khmer, Thai and emoji need their joiners and zero-width space.
_ACTING = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff"
    "\\ufff9-\\ufffb\\ud800-\\udfff\\U000e0000-\\U000e007f"
)
_IN_TEXT = re.compile(f"[{_ACTING}]")
_IN_A_LINE = re.compile(f"[{_ACTING}\t\n]")
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
# What the kit, tqdm and rich write themselves: plain colours, never one that hides; and tqdm's return to the beginning.
_COLOURS = re.compile("(\x1b\\[(?:0|[1-4]|3[1-7]|9[0-7])?(?:;(?:0|[1-4]|3[1-7]|9[0-7]))*m|\\A\r)")
# What redrawing takes as well: any colour, the cursor shown, hidden and moved up, a line cleared.
_REDRAWING = re.compile("(\x1b\\[(?:[0-9;]*m|\\?25[lh]|[0-9]{0,3}A|2K)|\r)")


def visible(text: str) -> str:
    """Write out what a terminal would act on, as JSON does; lines and tabs stay."""
    return _IN_TEXT.sub(_written_out, text)


def one_line(text: object) -> str:
    """Do the same for what is one line: a name, a path, a sentence. It cannot begin another."""
    return _IN_A_LINE.sub(_written_out, str(text))


def code(text: object) -> str:
    """Write a name for Markdown's backticks, out of which it cannot break."""
    return one_line(text).replace("`", "'")


def passing(text: str, *, redraws: bool = False) -> str:
    """Let the kit's own colours through, where ``redraws`` its own cursor moves too, and write out everything else."""
    if not _IN_TEXT.search(text):
        return text
    parts = (_REDRAWING if redraws else _COLOURS).split(text)
    return "".join(part if number % 2 else visible(part) for number, part in enumerate(parts))


def _written_out(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return _SHORT.get(match[0]) or "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
