"""What a command refuses to begin with: said in its own words, and no failure of the kit's.

Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.cli.findings import Finding


class WrongUseError(ValueError):
    """The command was used wrongly, or names what cannot be read: one sentence, its fix behind the last semicolon."""


class FindingsError(ValueError):
    """What was given cannot be used; its text is every finding, one a line, each with its fix."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        """Keep the findings; there is at least one."""
        self.findings = list(findings)
        super().__init__("\n".join(_sentence(finding) for finding in self.findings))

    @property
    def exit_code(self) -> int:
        """1; a subclass knows which of its findings mean that the command was used wrongly."""
        return 1


def _sentence(finding: Finding) -> str:
    place = f"{finding.where}: " if finding.where else ""
    return f"{place}{finding.message}; fix: {finding.fix}" if finding.fix else f"{place}{finding.message}"
