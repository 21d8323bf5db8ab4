"""The split into training and validation rows: each conversation, and each group, is on one side only.

A unit stays together: the rows of one conversation (ignoring case, whitespace and Unicode forms), of one group, or of
groups that share a conversation. Units are ordered by a hash of the seed and their content, so the split depends
neither on the order of the rows nor on the number of cores.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.intake.ledger import DROPPED, TRAIN, VAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.intake.ledger import Ledger

DEFAULT_SHARE = 0.05
MOST_BY_DEFAULT = 1000  # rows: more make every evaluation slower and hardly more accurate


@dataclass(frozen=True)
class Split:
    """How rows are split; ``share`` of the rows are held out, None for 5 %, at most 1,000 rows."""

    share: float | None = None
    seed: int = 42
    by_group: bool = False


def split_rows(ledger: Ledger, split: Split) -> None:
    """Assign every kept row of the ledger to a side."""
    database = ledger.database
    if split.by_group:
        join_groups(ledger)
    database.create_function("place", 1, lambda unit: _place(split.seed, unit), deterministic=True)
    # With MIN() in a query SQLite takes the bare columns from the row that holds the minimum.
    database.executescript(
        f"""
        CREATE TEMP TABLE units AS
            SELECT unit, label, COUNT(*) AS size, MIN(number) AS first, place(unit) AS place
            FROM rows WHERE side = {TRAIN} GROUP BY unit;
        CREATE INDEX temp.by_label ON units (label, place, unit);
        CREATE TEMP TABLE held_out (unit BLOB PRIMARY KEY) WITHOUT ROWID;
        """
    )
    strata = database.execute("SELECT label, SUM(size) FROM units GROUP BY label ORDER BY label").fetchall()
    for label, target in _targets(strata, split.share):
        units = database.execute("SELECT unit, size FROM units WHERE label = ? ORDER BY place, unit", (label,))
        chosen = list(_choose(units, target))
        units.close()  # an open query would lock its table
        database.executemany("INSERT INTO held_out VALUES (?)", ((unit,) for unit in chosen))
    (kept,) = database.execute("SELECT COUNT(*) FROM units WHERE unit NOT IN (SELECT unit FROM held_out)").fetchone()
    if kept:  # a single unit is trained on, never held out
        database.execute(f"UPDATE rows SET side = {VAL} WHERE side = {TRAIN} AND unit IN (SELECT unit FROM held_out)")
    database.executescript("DROP TABLE temp.units; DROP TABLE temp.held_out;")


def _place(seed: int, unit: bytes) -> bytes:
    return hashlib.blake2b(unit, digest_size=8, key=str(seed).encode()[:64]).digest()


def _targets(strata: list[tuple[str, int]], share: float | None) -> list[tuple[str, int]]:
    """Give each stratum its part of the rows to hold out; the parts add up to the total."""
    total = sum(size for _, size in strata)
    wanted = min(round(total * DEFAULT_SHARE), MOST_BY_DEFAULT) if share is None else round(total * share)
    if total > 1 and not wanted and share != 0:
        wanted = 1
    targets, seen, given = [], 0, 0
    for label, size in strata:
        seen += size
        upto = round(wanted * seen / total)
        targets.append((label, upto - given))
        given = upto
    return targets


def _choose(units: Iterable[tuple[bytes, int]], target: int) -> Iterable[bytes]:
    """Take units in order until the target is met; skip one that would overshoot by more than it fills."""
    taken = 0
    for unit, size in units:
        missing = target - taken
        if missing <= 0:
            return
        if size <= missing or size - missing < missing:
            taken += size
            yield unit


def join_groups(ledger: Ledger) -> None:
    """Make one unit of all groups that share a conversation."""
    database = ledger.database
    shared = database.execute(
        f"SELECT DISTINCT loose, unit FROM rows WHERE side < {DROPPED} AND loose IN "
        f"(SELECT loose FROM rows WHERE side < {DROPPED} GROUP BY loose HAVING COUNT(DISTINCT unit) > 1) "
        "ORDER BY loose, unit"
    )
    leader: dict[bytes, bytes] = {}

    def find(unit: bytes) -> bytes:
        while leader.get(unit, unit) != unit:
            leader[unit] = leader.get(leader[unit], leader[unit])
            unit = leader[unit]
        return unit

    first: tuple[bytes, bytes] | None = None
    for loose, unit in shared:
        if first is None or first[0] != loose:
            first = (loose, unit)
        low, high = sorted((find(first[1]), find(unit)))
        leader[high] = low
    moved = [(find(unit), unit) for unit in leader if find(unit) != unit]
    if moved:
        database.execute("CREATE INDEX by_unit ON rows (unit)")
        database.executemany("UPDATE rows SET unit = ? WHERE unit = ?", moved)
        database.execute("DROP INDEX by_unit")
