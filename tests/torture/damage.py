"""What happens to bytes on their way: bits flip, pieces are lost, doubled, moved, or overwritten with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

# Characters that have broken readers before: blanks that are none, marks of direction, breaks, halves, the unprintable.
ODD_TEXT = (
    "\u00a0", "\u200b", "\u200e", "\u202e", "\u2028", "\u2029", "\u0085", "\ufeff", "\ufffd", "\uffff", "\u0301",
    "\U0001f600", "\U000e0041", "\x00", "\x07", "\x1b[31m", "\x7f", "\t", "\r", "\n", "\r\n", "\\", '"', "'", "{", "[",
    "]", "}", ",", ":", ": ", " #", "- ", "? ", "%", "@", "`", "|", ">", "&a ", "*a", "!!str ", "<<: ",
    "---\n", "...\n",    "\u00e9", "\u0435", "1", "\uff10", "None", "nan",
)  # fmt: skip


def flip_bits(source: Random, raw: bytes) -> bytes:
    """Flip one to four bits."""
    changed = bytearray(raw)
    for _ in range(source.randint(1, 4)):
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
    return bytes(changed)


def overwrite(source: Random, raw: bytes) -> bytes:
    """Overwrite a few bytes with any others."""
    at, length = source.randrange(len(raw)), source.randint(1, 8)
    return raw[:at] + source.randbytes(length) + raw[at + length :]


def truncate(source: Random, raw: bytes) -> bytes:
    """Lose the end."""
    return raw[: source.randrange(len(raw))]


def lose(source: Random, raw: bytes) -> bytes:
    """Lose a piece."""
    at = source.randrange(len(raw))
    return raw[:at] + raw[at + source.randint(1, 40) :]


def double(source: Random, raw: bytes) -> bytes:
    """Have a piece twice."""
    at, length = source.randrange(len(raw)), source.randint(1, 40)
    return raw[: at + length] + raw[at:]


def insert(source: Random, raw: bytes) -> bytes:
    """Have an odd character somewhere."""
    at = source.randrange(len(raw) + 1)
    return raw[:at] + source.choice(ODD_TEXT).encode() + raw[at:]


def zero(source: Random, raw: bytes) -> bytes:
    """Have zeros in place of a piece, as after a power cut."""
    at, length = source.randrange(len(raw)), source.randint(1, 64)
    end = min(len(raw), at + length)
    return raw[:at] + bytes(end - at) + raw[end:]


BYTES: dict[str, Callable[[Random, bytes], bytes]] = {
    "bits flipped": flip_bits,
    "bytes overwritten": overwrite,
    "cut off": truncate,
    "a piece lost": lose,
    "a piece twice": double,
    "an odd character": insert,
    "zeros": zero,
}
