"""Follow a run live: progress, loss, learning rate, gradient norm, tokens/s, time left.

Run as:
    python scripts/kit watch                 the newest run        (or: make watch)
    python scripts/kit watch demo            a run name or directory (or: make watch RUN=demo)

Only reads metrics.jsonl as it grows: Ctrl-C detaches, and the run continues. Where stdout is not a terminal it
prints plain lines. Ends when the run does. Exit codes: 0 the run finished (--once: it was shown), 1 it was stopped,
failed or killed, 2 there is no such run, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from kit.cli.console import say, wants_colour
from kit.cli.redaction import redrawing
from kit.cli.screen import one_line
from kit.run_directory.history import NEWEST, Run, find_run, read_receipt
from kit.run_directory.liveness import KILLED, RESUME_HINT, UNDER_WAY, state_of
from kit.run_directory.metrics_tail import MetricsTail
from kit.runs.terminal_view import RunProgress, figures, plain_line, plot, plotted

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from rich.console import Console, RenderableType

_LOOK_EVERY_S = 0.5
_JUDGE_EVERY_S = 2.0  # the receipt and the process change seldom
_PLAIN_EVERY_S = 10.0
_PLOT_LINES = 8
# By SIGKILL, SIGXCPU, SIGUSR2 or itself: none of them lets a run say its end.
_DIED = "its process was killed or crashed"


class Watched:
    """One run being watched: its receipt, its metrics so far, and whether it still goes on."""

    def __init__(self, folder: Path) -> None:
        """Begin to watch the run in a folder.

        Raises:
            RunError: It has no receipt that can be read.
        """
        self.folder = folder
        self._tail = MetricsTail(folder / "metrics.jsonl")
        self._judged = 0.0
        self.progress = RunProgress()
        self.run = Run(folder, read_receipt(folder))
        self.state = state_of(self.run)
        self.look()

    def look(self) -> bool:
        """Read what is new; return whether any step came."""
        now = time.monotonic()
        if now - self._judged >= _JUDGE_EVERY_S:
            self._judged = now
            self.run = Run(self.folder, read_receipt(self.folder))
            self.state = state_of(self.run)
        # Read after the receipt: when it says that the run is over, every line is there.
        lines, again = self._tail.read()
        if again:
            self.progress = RunProgress()
        planned = self.run.receipt.get("steps")
        self.progress.planned_steps = planned if isinstance(planned, int) else None
        self.progress.add(lines)
        return bool(lines)

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more will come."""
        return self.state not in UNDER_WAY


def run(options: argparse.Namespace) -> int:
    try:
        watched = Watched(find_run(options.run))
        if options.once:
            print(_once(watched))
            return 0
        if watched.is_over:
            return _end(watched)
        if sys.stdout.isatty():
            _live(watched)
        else:
            _lines(watched)
        return _end(watched)
    except KeyboardInterrupt:
        say("detached; the run continues")
        return 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default=NEWEST, help="a run directory or run name; default: newest")
    parser.add_argument("--once", action="store_true", help="show the state once and exit")


def _once(watched: Watched) -> str:
    text = f"{one_line(watched.run.name)} ({one_line(watched.state)})  {plain_line(watched.progress)}"
    losses, _ = plotted(watched.progress.losses)
    sparks = plot(losses, 60, 1, unicode=_shows_blocks(sys.stdout.encoding))
    text = f"{text}\nloss  {sparks[0]}" if watched.progress.losses else text
    return f"{text}\n{_DIED}\nnext: {RESUME_HINT}" if watched.state == KILLED else text


def _end(watched: Watched) -> int:
    progress, name = watched.progress, watched.run.name
    words = {KILLED: f"died: {_DIED}"}.get(watched.state, watched.state)
    validation = f", validation loss {progress.evaluations[-1][1]:.4f}" if progress.evaluations else ""
    loss = f": training loss {progress.losses[-1]:.4f}{validation}" if progress.losses else ""
    of = f" of {progress.planned_steps:,}" if progress.planned_steps else ""
    print(f"{one_line(name)} {one_line(words)} at step {progress.step:,}{of}{loss}")
    if watched.run.failure:
        print(one_line(f"it failed: {watched.run.failure}"))
    if watched.state in {KILLED, "interrupted"}:
        print(f"next: {RESUME_HINT}")
    print(f"next: make report RUN={one_line(watched.folder)}")
    return 0 if watched.state == "finished" else 1


def _lines(watched: Watched) -> None:
    """Print a line where there is something new, for a log file."""
    print(plain_line(watched.progress), flush=True)
    said, step = time.monotonic(), watched.progress.step
    while not watched.is_over:
        time.sleep(_LOOK_EVERY_S)
        watched.look()
        if watched.progress.step != step and time.monotonic() - said >= _PLAIN_EVERY_S:
            said, step = time.monotonic(), watched.progress.step
            print(plain_line(watched.progress), flush=True)


def _live(watched: Watched) -> None:
    """Redraw the terminal until the run ends."""
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=not wants_colour(sys.stdout), highlight=False)
    view = Live(
        _frame(watched, console), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    )
    with redrawing(sys.stdout):
        try:
            with view as live:
                while not watched.is_over:
                    time.sleep(_LOOK_EVERY_S)
                    watched.look()
                    live.update(_frame(watched, console), refresh=True)
        finally:
            console.show_cursor()  # what cuts into the first frame leaves it hidden


def _frame(watched: Watched, console: Console) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    progress, width = watched.progress, console.width
    planned = progress.planned_steps
    of = f" of {planned:,}" if planned else ""
    title = Text.assemble(
        (one_line(watched.run.name), "bold"), f"  {one_line(watched.state)}, step {progress.step:,}{of}"
    )
    parts: list[RenderableType] = [title]
    if planned:
        parts.append(ProgressBar(total=planned, completed=progress.step, width=width - 1))
    if progress.losses:
        losses, remark = plotted(progress.losses)
        lines = plot(losses, width - 2, _PLOT_LINES, unicode=_shows_blocks(console.encoding))
        parts.append(Text("\n".join(["", *lines]), style="blue", no_wrap=True))
        parts.append(Text(f"loss{remark}, from the first step to the latest", style="dim"))
    else:
        parts.append(Text("no step logged yet", style="dim"))
    table = Table.grid(padding=(0, 2))
    for name, value in figures(progress):
        table.add_row(Text(name, style="dim"), value)
    parts += [Text(""), table]
    if not watched.is_over:
        parts.append(Text("Ctrl-C detaches; the run continues", style="dim"))
    return Group(*parts)


def _shows_blocks(encoding: str | None) -> bool:
    return (encoding or "").lower().startswith("utf")
