"""The report: one run as a page a person likes to look at. Nothing heavy is imported until one is written."""

from __future__ import annotations

from pathlib import Path

from kit.cli.console import say
from kit.run_directory.names import RECEIPT


def after_run(folder: Path) -> None:
    """Write a run's report and print its place; a run that never began has none.

    Never raises: a run is not worth less for a report that failed.
    """
    if not (folder / RECEIPT).exists():
        return
    try:
        from kit.report.write import write_report

        say(f"report: {write_report(folder).page}")
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001 - whatever it is, the run itself is over and saved
        detail = (str(exc).splitlines() or [""])[0]
        problem = f"{type(exc).__name__}: {detail}" if detail else type(exc).__name__
        say(f"warning: the report could not be written ({problem}); again with: make report RUN={folder}", "yellow")
