"""Write what the ledger says into the documentation: what stands between ``<!-- measured: NAME -->`` and its end.

Run as:
    python -m bench.document             (or, with tools.document: make docs)
    python -m bench.document --check     say whether the pages are up to date, and write nothing

Exit codes: 0 written, or up to date; 1 --check found one that is stale.
"""

from __future__ import annotations

from kit.cli.command import command_parser, run_main
from kit.cli.interpreter import PROJECT_ROOT, use_project_python

if __name__ == "__main__":
    use_project_python()

from typing import TYPE_CHECKING

from bench.measured_docs import is_measured, with_measurements
from kit.cli.findings import exit_code, render
from kit.plan.ledger import read_all
from tools.document import write_or_compare

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = PROJECT_ROOT / "docs"


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = command_parser(__doc__, "bench.document")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    options = parser.parse_args(argv)
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
    records = read_all()
    measured = {path: with_measurements(text, records) for path, text in pages.items() if is_measured(text)}
    findings = write_or_compare(measured, write=not options.check)
    render(findings)
    return exit_code(findings)


if __name__ == "__main__":
    run_main(main)
