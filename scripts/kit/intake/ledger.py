"""The ledger: every row that can be trained on, its place and its side, on disk, so that memory stays flat."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from kit.data.conversations import LineNumbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kit.intake.work import Row

TRAIN, VAL, DROPPED = 0, 1, 2
_SCHEMA = """
CREATE TABLE rows (
    number INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    line INTEGER NOT NULL,
    exact BLOB NOT NULL,
    loose BLOB NOT NULL,
    unit BLOB NOT NULL,
    label TEXT NOT NULL,
    size INTEGER NOT NULL,
    tokens INTEGER,
    trained INTEGER,
    marks INTEGER,
    side INTEGER NOT NULL,
    same_as INTEGER,
    reason TEXT
)
"""
_CACHE_KIB = 32 << 10


class Ledger:
    """Rows that can be trained on, numbered in the order read; a file beside the database holds their text."""

    def __init__(self, folder: Path) -> None:
        """Begin an empty ledger in an empty folder."""
        os.environ["SQLITE_TMPDIR"] = str(folder)  # /tmp may be too small for sorting
        self.database = sqlite3.connect(folder / "ledger.sqlite3", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "temp_store = FILE"):
            self.database.execute(f"PRAGMA {pragma}")
        self.database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self.database.execute(_SCHEMA)
        self.database.execute("BEGIN")
        self._texts = (folder / "rows").open("w+b")
        self.count = 0

    def close(self) -> None:
        """Close the files."""
        self._texts.close()
        with contextlib.suppress(sqlite3.Error):
            self.database.close()

    def add(
        self,
        source: int,
        rows: Sequence[Row],
        *,
        side: int = TRAIN,
        same_as: Sequence[int | None] = (),
        keep_text: bool,
    ) -> None:
        """Enter a source's rows; ``same_as`` has for each the number of the row it nearly repeats, or None."""
        entries = []
        for position, row in enumerate(rows):
            first = same_as[position] if same_as else None
            tokens, trained, marks = row.length or (None, None, None)
            self.count += 1
            where = DROPPED if first is not None else side
            reason = "near" if first is not None else None
            unit = row.group or row.loose
            entries.append(
                (
                    self.count, source, row.line, row.exact, row.loose, unit, row.label, len(row.text) + 1,
                    tokens, trained, marks, where, first, reason,
                )
            )  # fmt: skip
        self.database.executemany(f"INSERT INTO rows VALUES ({', '.join('?' * 14)})", entries)
        if keep_text:
            self._texts.writelines(row.text + b"\n" for row in rows)

    def drop_duplicates(self) -> None:
        """Drop every row that repeats an earlier one exactly."""
        self.database.executescript(
            f"""
            CREATE TEMP TABLE firsts AS
                SELECT exact, MIN(number) AS first FROM rows GROUP BY exact HAVING COUNT(*) > 1;
            CREATE INDEX temp.by_exact ON firsts (exact);
            UPDATE rows SET side = {DROPPED}, same_as = firsts.first, reason = 'exact'
                FROM firsts WHERE rows.exact = firsts.exact AND rows.number > firsts.first;
            DROP TABLE temp.firsts;
            """
        )

    def duplicates(self) -> tuple[int, list[tuple[int, int]]]:
        """Count rows that repeat an earlier one of the same side; return the first few as (number, earlier number)."""
        query = (
            "SELECT rows.number, firsts.first FROM rows JOIN "
            "(SELECT exact, side, MIN(number) AS first, COUNT(*) AS times FROM rows GROUP BY exact, side) AS firsts "
            f"ON rows.exact = firsts.exact AND rows.side = firsts.side WHERE rows.side < {DROPPED} "
            "AND firsts.times > 1 AND rows.number > firsts.first ORDER BY rows.number"
        )
        count = 0
        first: list[tuple[int, int]] = []
        for number, earlier in self.database.execute(query):
            count += 1
            if len(first) < 8:  # noqa: PLR2004 - as many as findings name
                first.append((number, earlier))
        return count, first

    def leaked(self) -> LineNumbers:
        """Return the numbers of the validation rows that are also trained on."""
        places = LineNumbers()
        query = (
            f"SELECT number FROM rows WHERE side = {VAL} AND loose IN "
            f"(SELECT loose FROM rows WHERE side = {TRAIN}) ORDER BY number"
        )
        places.extend(number for (number,) in self.database.execute(query))
        return places

    def where(self, number: int) -> tuple[int, int]:
        """Return (source, line) of a row."""
        (found,) = self.database.execute("SELECT source, line FROM rows WHERE number = ?", (number,))
        return int(found[0]), int(found[1])

    def dropped(self) -> Iterator[tuple[int, int, str, int, int]]:
        """Yield (source, line, reason, repeated row's source and line) of every dropped row, in order."""
        query = (
            "SELECT rows.source, rows.line, rows.reason, earlier.source, earlier.line FROM rows "
            f"JOIN rows AS earlier ON earlier.number = rows.same_as WHERE rows.side = {DROPPED} ORDER BY rows.number"
        )
        yield from self.database.execute(query)

    def texts(self) -> Iterator[tuple[int, bytes]]:
        """Yield (side, line of JSON) of every kept row, in the order they were read."""
        self._texts.flush()
        self._texts.seek(0)
        for size, side in self.database.execute("SELECT size, side FROM rows ORDER BY number"):
            text = self._texts.read(size)
            if side != DROPPED:
                yield side, text

    def lengths(self, side: int | None = None) -> dict[int, int]:
        """Count rows by tokens before truncation, of one side or all kept rows."""
        chosen = f"side < {DROPPED}" if side is None else f"side = {side:d}"
        query = f"SELECT tokens, COUNT(*) FROM rows WHERE tokens IS NOT NULL AND {chosen} GROUP BY tokens"
        return dict(self.database.execute(query))

    def trained(self, side: int | None = None) -> int:
        """Sum the tokens with loss."""
        chosen = f"side < {DROPPED}" if side is None else f"side = {side:d}"
        (total,) = self.database.execute(f"SELECT COALESCE(SUM(trained), 0) FROM rows WHERE {chosen}").fetchone()
        return int(total)

    def counts(self, column: str, side: int) -> dict[str | int, int]:
        """Count one side's rows by ``source``, ``label`` or ``reason``."""
        if column not in {"source", "label", "reason"}:
            raise ValueError(f"cannot count rows by {column}")
        query = f"SELECT {column}, COUNT(*) FROM rows WHERE side = ? GROUP BY {column} ORDER BY {column}"
        return dict(self.database.execute(query, (side,)))

    def matching(self, condition: str, *values: int) -> tuple[int, list[int]]:
        """Count the kept rows that meet an SQL condition; return the first few numbers too."""
        base = f"FROM rows WHERE side < {DROPPED} AND {condition}"
        (count,) = self.database.execute(f"SELECT COUNT(*) {base}", values).fetchone()
        first = self.database.execute(f"SELECT number {base} ORDER BY number LIMIT 8", values)
        return int(count), [number for (number,) in first]
