"""Write what in docs/ is made from the Cerberus schema and from the ledger of measurements.

The configuration's reference page and its JSON schema for editors are made whole; in other pages what stands between
``<!-- measured: NAME -->`` and ``<!-- /measured -->``.

Run as:
    python -m tools.document             (or: make docs)
    python -m tools.document --check     say whether they are up to date, and write nothing

Exit codes: 0 written, or up to date; 1 --check found one that is stale.
"""

from __future__ import annotations

from kit.cli.command import command_parser, run_main
from kit.cli.interpreter import PROJECT_ROOT, use_project_python

if __name__ == "__main__":
    use_project_python()

import json
from typing import TYPE_CHECKING

from bench.measured_docs import is_measured, with_measurements
from kit.cli.findings import Finding, error, exit_code, ok, render
from kit.config.json_schema import json_schema
from kit.config.reference import reference_page
from kit.plan.ledger import read_all
from tools.shipped_configs import check_configs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DOCS, CONFIGS = PROJECT_ROOT / "docs", PROJECT_ROOT / "configs"


def generated(folder: Path) -> dict[str, str]:
    """Return the files that are made, or parts of which are: name in docs/, and content.

    Args:
        folder: Where the pages are whose parts are made.
    """
    records = read_all()
    pages = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    return {
        "CONFIG_REFERENCE.md": reference_page(),
        "training_config.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
        **{name: with_measurements(text, records) for name, text in pages.items() if is_measured(text)},
    }


def check(folder: Path = DOCS) -> list[Finding]:
    """Compare what is there with what the schema and the ledger give."""
    findings = []
    for name, content in generated(folder).items():
        path = folder / name
        is_current = path.is_file() and path.read_text(encoding="utf-8") == content
        message = "is up to date" if is_current else "is not what the schema and the ledger give"
        where = f"docs/{name}"
        findings.append(
            ok("docs.generated", message, where) if is_current else error("docs.stale", message, "make docs", where)
        )
    return findings + check_configs(CONFIGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = command_parser(__doc__, "document.py")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale")
    if not parser.parse_args(argv).check:
        for name, content in generated(DOCS).items():
            (DOCS / name).write_text(content, encoding="utf-8")
    findings = check()
    render(findings)
    return exit_code(findings)


if __name__ == "__main__":
    run_main(main)
