"""Write the configuration's reference page and its JSON schema for editors, both from the Cerberus schema.

Run as:
    python scripts/document.py             (or: make docs)
    python scripts/document.py --check     say whether they are up to date, and write nothing

Exit codes: 0 written, or up to date; 1 --check found one that is stale.
"""

from __future__ import annotations

from kit.command import command_parser, run_main
from kit.interpreter import PROJECT_ROOT, use_project_python

if __name__ == "__main__":
    use_project_python()

import json
from typing import TYPE_CHECKING

from kit.config.json_schema import json_schema
from kit.config.reference import reference_page
from kit.findings import Finding, error, exit_code, ok, render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DOCS = PROJECT_ROOT / "docs"


def generated() -> dict[str, str]:
    """Return the generated files: name in docs/, and content."""
    return {
        "CONFIG_REFERENCE.md": reference_page(),
        "training_config.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
    }


def check(folder: Path = DOCS) -> list[Finding]:
    """Compare what is there with what the schema gives."""
    findings = []
    for name, content in generated().items():
        path = folder / name
        is_current = path.is_file() and path.read_text(encoding="utf-8") == content
        message = "is up to date" if is_current else "is not what the schema gives"
        where = f"docs/{name}"
        findings.append(
            ok("docs.generated", message, where) if is_current else error("docs.stale", message, "make docs", where)
        )
    return findings


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = command_parser(__doc__, "document.py")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale")
    if not parser.parse_args(argv).check:
        for name, content in generated().items():
            (DOCS / name).write_text(content, encoding="utf-8")
    findings = check()
    render(findings)
    return exit_code(findings)


if __name__ == "__main__":
    run_main(main)
