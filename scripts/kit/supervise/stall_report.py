"""Reports of a stalled step: on the terminal, in ``stalled.txt`` and in ``run.json``."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kit.cli.console import duration, say
from kit.cli.failures import explain
from kit.cli.findings import render, warning
from kit.run_directory.checkpoints import resume_hint
from kit.run_directory.names import STALLED
from kit.supervise.stall import GRACE_S, StalledError, sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kit.run_directory.receipt import Receipt
    from kit.supervise.stall import Stall

# The run failed: the same code as any other failure. What starts a run again need not tell them apart.
EXIT_CODE = 1


def end_at_once() -> None:
    """End the process, whatever its main thread hangs in; what is saved is whole at any moment."""
    os._exit(EXIT_CODE)


class StallReport:
    """Reports what ``StallWatch`` finds: on the terminal first, since a disk may be what hangs."""

    def __init__(self, folder: Path, receipt: Receipt, on_stall: str, rows: Callable[[], list[str]]) -> None:
        """Report on one run; ``rows`` names the rows of the step under way."""
        self._folder, self._receipt, self._on_stall, self._rows = folder, receipt, on_stall, rows

    def stalled(self, found: Stall) -> None:
        """Report the stall, with every thread's stack and the step's rows."""
        rows = self._rows()
        ends = f"; stopping in {duration(GRACE_S)} unless it finishes" if self._on_stall == "stop" else ""
        place = self._folder / STALLED
        render(
            [warning("run.stalled", f"{sentence(found)}{ends}; traces: {place}", f"rows of the step: {_few(rows)}")],
            sys.stderr,
        )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = f"{now}  {sentence(found)}\nrows: {', '.join(rows)}\n{found.stands}\n"
        with place.open("a", encoding="utf-8") as file:
            file.write(text)
        entry = {"what": found.doing, "rows": rows, "seconds": round(found.seconds, 1), "went_on": False}
        self._receipt.update(stalls=[*self._receipt.facts.get("stalls", []), entry])

    def went_on(self, found: Stall) -> None:
        """Report that the work finished after all."""
        say(f"{found.doing} finished after {duration(found.seconds)}", "yellow")
        *earlier, entry = self._receipt.facts["stalls"]
        entry = {**entry, "seconds": round(found.seconds, 1), "went_on": True}
        self._receipt.update(stalls=[*earlier, entry])

    def give_up(self, found: Stall) -> None:
        """Complete the receipt as failed."""
        exc = StalledError(sentence(found))
        render([explain(exc)], sys.stderr)
        self._receipt.finish("failed", error=f"{type(exc).__name__}: {exc}")
        render(resume_hint(self._folder), sys.stderr)
        sys.stderr.flush()  # what comes next does not


def _few(rows: Sequence[str]) -> str:
    return f"{', '.join(rows[:4])}{', …' if len(rows) > 4 else ''}"  # noqa: PLR2004 - a line
