"""Write what is made from the configuration's schema, the receipt's keys and the plan.

That is the pages of the configuration's and the receipt's keys, the JSON schema for editors, and what detection says
that a run needs and takes. The pages' measured parts are ``bench.document``'s.

Run as:
    python -m tools.document             (or, with bench.document: make docs)
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

from kit.cli.findings import Finding, error, exit_code, ok, render
from kit.machine import planned
from tools.config_reference import reference_page
from tools.json_schema import json_schema
from tools.receipt_page import receipt_page
from tools.shipped_configs import check_configs
from tools.shipped_needs import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DOCS, CONFIGS = PROJECT_ROOT / "docs", PROJECT_ROOT / "configs"


def generated(folder: Path) -> dict[Path, str]:
    """Return the files that are made, and their content.

    Args:
        folder: Where the pages are.
    """
    return {
        folder / "CONFIG_REFERENCE.md": reference_page(),
        folder / "RECEIPT.md": receipt_page(),
        folder / "training_config.schema.json": _json(json_schema()),
        planned.FILE: _json(shipped()),
    }


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def write_or_compare(files: Mapping[Path, str], *, write: bool) -> list[Finding]:
    """Write files, or say of each whether it is what it is made from gives."""
    findings = []
    for path, content in files.items():
        if write:
            path.write_text(content, encoding="utf-8")
        is_current = path.is_file() and path.read_text(encoding="utf-8") == content
        message = "is up to date" if is_current else "is not what it is made from gives"
        where = f"{path.parent.name}/{path.name}"
        findings.append(
            ok("docs.generated", message, where) if is_current else error("docs.stale", message, "make docs", where)
        )
    return findings


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = command_parser(__doc__, "tools.document")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale")
    options = parser.parse_args(argv)
    findings = write_or_compare(generated(DOCS), write=not options.check) + check_configs(CONFIGS)
    render(findings)
    return exit_code(findings)


if __name__ == "__main__":
    run_main(main)
