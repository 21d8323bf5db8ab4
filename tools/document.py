"""Write what is made from the configuration's schema, the receipt's keys, the ledger of measurements and the plan.

Whole files: the pages of the configuration's and the receipt's keys, the JSON schema for editors, and what detection
says that a run needs and takes. In other pages: what stands between ``<!-- measured: NAME -->`` and its end.

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
from typing import TYPE_CHECKING, Any

from bench.measured_docs import is_measured, with_measurements
from kit.cli.findings import Finding, error, exit_code, ok, render
from kit.machine import planned
from kit.plan.ledger import read_all
from tools.config_reference import reference_page
from tools.json_schema import json_schema
from tools.receipt_page import receipt_page
from tools.shipped_configs import check_configs
from tools.shipped_needs import shipped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DOCS, CONFIGS = PROJECT_ROOT / "docs", PROJECT_ROOT / "configs"


def generated(folder: Path) -> dict[Path, str]:
    """Return the files that are made, or parts of which are, and their content.

    Args:
        folder: Where the pages are.
    """
    records = read_all()
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    return {
        folder / "CONFIG_REFERENCE.md": reference_page(),
        folder / "RECEIPT.md": receipt_page(),
        folder / "training_config.schema.json": _json(json_schema()),
        planned.FILE: _json(shipped()),
        **{path: with_measurements(text, records) for path, text in pages.items() if is_measured(text)},
    }


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def check(folder: Path = DOCS) -> list[Finding]:
    """Compare what is there with what it is made from."""
    findings = []
    for path, content in generated(folder).items():
        is_current = path.is_file() and path.read_text(encoding="utf-8") == content
        message = "is up to date" if is_current else "is not what it is made from gives"
        where = f"{path.parent.name}/{path.name}"
        findings.append(
            ok("docs.generated", message, where) if is_current else error("docs.stale", message, "make docs", where)
        )
    return findings + check_configs(CONFIGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = command_parser(__doc__, "document.py")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale")
    if not parser.parse_args(argv).check:
        for path, content in generated(DOCS).items():
            path.write_text(content, encoding="utf-8")
    findings = check()
    render(findings)
    return exit_code(findings)


if __name__ == "__main__":
    run_main(main)
