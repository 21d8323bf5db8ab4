"""What is known about one lock's packages, and what could not be found out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Vulnerability:
    """One published vulnerability of one pinned version.

    Attributes:
        package: The package's name in its canonical form.
        version: The pinned version.
        id: What the database calls it.
        aliases: What others call it: CVE, GHSA, PYSEC numbers.
        fixed_in: The versions that mend it; empty where none is known.
    """

    package: str
    version: str
    id: str
    aliases: frozenset[str] = frozenset()
    fixed_in: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Everything it is called."""
        return self.aliases | {self.id}

    @property
    def best_name(self) -> str:
        """The name people know it by: the CVE number, where there is one."""
        return min((name for name in self.names if name.startswith("CVE-")), default=self.id)


@dataclass(frozen=True)
class Answer:
    """What a service or a database said about one lock.

    Attributes:
        source: Who was asked.
        lock: The lock's name.
        target: The lock's file.
        pins: Version by package.
        vulnerabilities: What is known.
        unchecked: By package, why nothing could be found out.
        is_complete: What was not found is not known to anybody: a service can say so, a saved database cannot.
    """

    source: str
    lock: str
    target: str
    pins: Mapping[str, str]
    vulnerabilities: tuple[Vulnerability, ...] = ()
    unchecked: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = True


def canonical(name: str) -> str:
    """Write a package's name as an index does: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
