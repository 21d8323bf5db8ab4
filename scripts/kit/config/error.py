"""The configuration's one exception: every problem of a file and its overrides, as findings."""

from __future__ import annotations

from kit.cli.mistakes import FindingsError

# Findings of these families mean that the command was used wrongly or a file cannot be read: exit code 2.
_USAGE_FAMILIES = ("config.file.", "config.override.")


class ConfigError(FindingsError):
    """A configuration that cannot be used."""

    @property
    def exit_code(self) -> int:
        """2 where a file cannot be read or an override is no ``key=value``, 1 where the content is wrong."""
        return 2 if any(finding.id.startswith(_USAGE_FAMILIES) for finding in self.findings) else 1
