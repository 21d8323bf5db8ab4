"""Findings: what every check returns, how they are shown, and which exit code they lead to.

Standard library only. The JSON form is a contract: scripts read it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO

from kit.cli.console import paint
from kit.cli.redaction import redact, redact_all
from kit.cli.refusals import first_line, is_failure, refusal_in
from kit.cli.screen import one_line
from kit.cli.traceback_file import keep_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SCHEMA_VERSION = 1
# Worst last: what matters most stands closest to the prompt.
_ORDER = {"skipped": 0, "ok": 1, "warning": 2, "error": 3}
_MARKS = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "error": ("error", "red"),
    "skipped": ("skipped", "dim"),
}


@dataclass(frozen=True)
class Finding:
    """One result of one check.

    Attributes:
        id: Dotted and stable, such as ``config.unknown_key``: scripts filter on it.
        severity: ``ok``, ``warning``, ``error`` or ``skipped``.
        message: One sentence: what was found and what is allowed or needed.
        fix: The command or the edit; empty where there is nothing to fix.
        where: ``file:line``, a key path or a device; empty where the message names no place.
    """

    id: str
    severity: str
    message: str
    fix: str = ""
    where: str = ""

    def __post_init__(self) -> None:
        """Refuse a severity nobody could sort."""
        if self.severity not in _ORDER:
            raise ValueError(f"severity {self.severity!r} is not one of {', '.join(_ORDER)}")


def ok(id: str, message: str, where: str = "") -> Finding:  # noqa: A002 - the field's own name
    """Build a finding that something is as it should be."""
    return Finding(id, "ok", message, "", where)


def warning(id: str, message: str, fix: str = "", where: str = "") -> Finding:  # noqa: A002 - the field's own name
    """Build a finding that deserves a look and stops nothing."""
    return Finding(id, "warning", message, fix, where)


def error(id: str, message: str, fix: str = "", where: str = "") -> Finding:  # noqa: A002 - the field's own name
    """Build a finding that stops a run."""
    return Finding(id, "error", message, fix, where)


def skipped(id: str, message: str, fix: str = "", where: str = "") -> Finding:  # noqa: A002 - the field's own name
    """Build a finding that says what was not checked, and why."""
    return Finding(id, "skipped", message, fix, where)


def run_check(check: Callable[[], Sequence[Finding]], name: str) -> list[Finding]:
    """Run one check; a check that crashes becomes an error finding, never a traceback."""
    try:
        return list(check())
    except BaseException as exc:
        if not is_failure(exc):
            raise
        where = keep_traceback(exc)
        refusal = refusal_in(exc)
        if refusal:
            what = f"the check {name!r} could not run: {refusal.message}"
            return [error(f"{name}.refused", what, f"{refusal.fix}; {where}")]
        what = f"the check {name!r} crashed: {type(exc).__name__}: {first_line(exc)}"
        return [error(f"{name}.crashed", what, f"report this as a bug; {where}")]


def has_errors(findings: Iterable[Finding]) -> bool:
    """Tell whether anything in there stops a run."""
    return any(finding.severity == "error" for finding in findings)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 for fine or warnings only, 1 where a check failed."""
    return 1 if has_errors(findings) else 0


def worst_last(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity, keeping the order of the checks within each."""
    return sorted(findings, key=lambda finding: _ORDER[finding.severity])


def summary(findings: Sequence[Finding]) -> str:
    """Count by severity: ``2 errors, 1 warning, 14 ok, 1 skipped``."""
    counts = Counter(finding.severity for finding in findings)
    parts = []
    for severity, plural in (("error", "errors"), ("warning", "warnings"), ("ok", "ok"), ("skipped", "skipped")):
        if counts[severity]:
            parts.append(f"{counts[severity]} {plural if counts[severity] > 1 else severity}")
    return ", ".join(parts) or "nothing checked"


def render(findings: Sequence[Finding], stream: TextIO | None = None) -> None:
    """Write all findings, worst last, each with its place and its fix."""
    stream = stream or sys.stdout
    for finding in worst_last(findings):
        word, colour = _MARKS[finding.severity]
        place = f"{finding.where}: " if finding.where else ""
        mark = paint(f"{word:>7}", colour, stream=stream)
        print(f"{mark}  {one_line(redact(place + finding.message))}", file=stream)
        if finding.fix:
            print(f"{'':>7}  {paint('fix:', 'bold', stream=stream)} {one_line(redact(finding.fix))}", file=stream)


def conclude(verdict: str, findings: Sequence[Finding]) -> None:
    """Write the verdict below the findings, red where there are errors, with their counts."""
    colour = "red" if has_errors(findings) else "green"
    print(f"\n{paint(verdict, colour, 'bold', stream=sys.stdout)} ({summary(findings)})")


def as_json(findings: Sequence[Finding], **more: Any) -> str:
    """Serialise findings, their verdict and whatever the command adds as one JSON object."""
    body = {
        "schema_version": SCHEMA_VERSION,
        "verdict": "failed" if has_errors(findings) else "passed",
        "findings": [asdict(finding) for finding in worst_last(findings)],
        **more,
    }
    return json.dumps(redact_all(body), indent=2, ensure_ascii=False)
