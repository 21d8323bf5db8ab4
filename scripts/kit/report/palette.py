"""The charts' colours: real ones for the picture, and stand-ins that become the page's CSS variables.

Blue and vermilion are Okabe and Ito's, which people with every kind of colour vision tell apart; on top of that the
curves differ in their marks and line styles.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Palette:
    """One colour for each role."""

    ink: str
    muted: str
    grid: str
    train: str
    validation: str
    bad: str


PICTURE = Palette(ink="#1d2433", muted="#5b6475", grid="#e3e6ec", train="#0072b2", validation="#d55e00", bad="#b3261e")

# matplotlib knows no CSS variables: it draws in these, and each is then replaced by its variable.
STAND_INS = Palette(*(f"#0{index}0{index}f{index}" for index in range(1, 7)))
VARIABLES = {getattr(STAND_INS, field.name): f"var(--{field.name})" for field in fields(Palette)}
