"""Text that tries to take a terminal over, and what is wrong with a screen it got through to."""

from __future__ import annotations

import re
import unicodedata

MARK = "FORGED"
ORDERS = (
    "\x1b[2J\x1b[H", "\x1bc", "\x1b[6n", "\x1b[21t", "\x1b[5i", "\x1b[?1000h", "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;t\x07", "\x1b]8;;x\x1b\\", "\x1bP+q\x1b\\", "\x1b(0", "\x1bZ", "\x9b2J", "\x9d0;t\x9c", "\x85",
    "\x07", "\b", "\x0b", "\x0c", "\x0e", "\x7f", "\r", "\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066",
    "\u2069", "\u2028", "\u2029", "\ufeff", "\U000e0041", "\x1b[8m", "\x1b[7m", "\x1b[38;5;0m", "\x1b[30;40m",
    "\x1b[32m", "\x1b[1m", "\x1b[0m", "\n",
)  # fmt: skip
EVIL = "".join(f"{order}{MARK}" for order in ORDERS)
# Short, and without a slash: a file's name.
EVIL_NAME = "".join(f"{order}{MARK}" for order in ("\x1b[2J", "\x1bc", "\x9b8m", "\r", "\n", "\u202e", "\x1b[32m"))
_OWN = re.compile("\x1b\\[(?:0|[1-4]|3[1-7]|9[0-7])?(?:;(?:0|[1-4]|3[1-7]|9[0-7]))*m|\r")
_MOVES = re.compile("\x1b\\[(?:38;[0-9;]*m|\\?25[lh]|[0-9]+A|2K)")
_ACTING = frozenset({"Cc", "Cs", "Zl", "Zp"})
_HARMLESS = frozenset("\n\t")
_REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")


def faults_on(screen: str, *, redrawn: bool = False) -> list[str]:
    """Say what reached a terminal that must not.

    Args:
        screen: Everything that was written to it.
        redrawn: It shows what is redrawn, by moves of the cursor.

    Shares nothing with ``kit.cli.screen``, so that where the two differ one of them is wrong.
    """
    text = screen.replace("\r\n", "\n")  # the terminal's own way of ending a line
    found = [f"{sign!r} acted" for sign in re.findall(f"(\r|\x1b\\[[0-9;]*m){MARK}", text)]
    found += [f"a line of its own: {line[:80]!r}" for line in text.split("\n") if line.lstrip().startswith(MARK)]
    rest = _OWN.sub("", _MOVES.sub("", text) if redrawn else text)
    acting = {sign for sign in rest if unicodedata.category(sign) in _ACTING and sign not in _HARMLESS}
    return found + sorted(f"{sign!r} reached the terminal" for sign in acting | set(_REORDERING.findall(rest)))
