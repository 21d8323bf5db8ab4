"""Write a run's report: ``report.html``, which needs nothing beside it, and ``report.png`` for a chat message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.files.durable import replace_file
from kit.report.charts import curves_png, page_charts
from kit.report.contents import gather
from kit.report.page import render_page
from kit.run_directory.names import REPORT_PAGE, REPORT_PICTURE

if TYPE_CHECKING:
    from pathlib import Path

    from kit.report.verdict import Verdict


@dataclass(frozen=True)
class Written:
    """A report on disk."""

    page: Path
    picture: Path
    verdict: Verdict


def write_report(folder: Path) -> Written:
    """Write a run's report into its folder, each file in one step.

    Raises:
        RunError: The folder holds no run that can be read.
        OSError: The folder cannot be written to.
    """
    contents = gather(folder)
    page, picture = folder / REPORT_PAGE, folder / REPORT_PICTURE
    replace_file(picture, curves_png(contents))
    replace_file(page, render_page(contents, page_charts(contents)).encode("utf-8", "replace"))
    return Written(page, picture, contents.verdict)
