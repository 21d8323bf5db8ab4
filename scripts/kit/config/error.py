"""The one exception the configuration raises: every problem of one file and its overrides, as findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.cli.findings import Finding

# Findings of these families mean that the command was used wrongly or a file cannot be read: exit code 2.
_USAGE_FAMILIES = ("config.file.", "config.override.")


class ConfigError(ValueError):
    """A configuration that cannot be used; its text is every finding, one a line, each with its fix."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        """Keep the findings; there is at least one."""
        self.findings = list(findings)
        super().__init__("\n".join(_sentence(finding) for finding in self.findings))

    @property
    def exit_code(self) -> int:
        """2 where a file cannot be read or an override is no ``key=value``, 1 where the content is wrong."""
        return 2 if any(finding.id.startswith(_USAGE_FAMILIES) for finding in self.findings) else 1


def _sentence(finding: Finding) -> str:
    place = f"{finding.where}: " if finding.where else ""
    return f"{place}{finding.message}; fix: {finding.fix}" if finding.fix else f"{place}{finding.message}"
