"""Configurations that were damaged, mistyped or made to deceive: each is refused, or taken for exactly what it says."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.config import schema
from kit.config.error import ConfigError
from kit.config.resolve import DEFAULT, resolve
from torture.config_meaning import Meaning, Refusal, is_yaml, meaning_of
from torture.config_mutants import make_mutant
from torture.fuzzing import FaultError, scratch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from random import Random

    from kit.cli.findings import Finding
    from kit.config.resolve import Resolved
    from torture.fuzzing import Mutant


@dataclass(frozen=True)
class ConfigFuzzer:
    """Mutants of the shipped configurations, and of overrides; see ``torture.fuzzing.Fuzzer``."""

    name: str = "configs"
    suffix: str = ".yaml"

    def mutant(self, source: Random) -> Mutant:
        """Make a file's bytes, and the overrides it is read with."""
        return make_mutant(source)

    def judge(self, mutant: Mutant) -> dict[str, int]:
        """Resolve it, and hold what came out against what it says; see ``Fuzzer``."""
        path = _scratch() / "config.yaml"
        path.write_bytes(mutant.content)
        reason, meaning = "", None
        try:
            meaning = meaning_of(mutant.content, mutant.details)
        except Refusal as exc:
            reason = str(exc)
        try:
            resolved = resolve(path, mutant.details)
        except ConfigError as exc:
            _check_findings(exc.findings, path, mutant)
            if meaning is not None and is_yaml(mutant.content):
                told = f"refused ({exc!s:.200}), and says nothing wrong"
                raise FaultError(_with_overrides(told, mutant.details)) from exc
            return {"refused": 1}
        if meaning is None:
            raise FaultError(_with_overrides(f"taken, and it has {reason}", mutant.details))
        _compare(resolved, meaning, path, mutant.details)
        return {"taken for what it says": 1}


def _with_overrides(told: str, overrides: Sequence[str]) -> str:
    return f"{told}; overrides: {', '.join(map(repr, overrides))}" if overrides else told


@functools.cache
def _scratch() -> Path:
    return scratch("fuzz-configs-")


def _check_findings(findings: list[Finding], path: Path, mutant: Mutant) -> None:
    last_line = mutant.content.count(b"\n") + mutant.content.count(b"\r") + mutant.content.count(b"\xc2\x85") + 2
    last_line += mutant.content.count(b"\xe2\x80\xa8") + mutant.content.count(b"\xe2\x80\xa9")
    if not findings:
        raise FaultError("refused without a finding")
    for finding in findings:
        told = f"{finding.where}: {finding.message}; fix: {finding.fix}"
        if finding.severity != "error" or not (finding.message and finding.fix and finding.where):
            raise FaultError(f"a finding without message, fix, place or severity: {finding!r:.200}")
        if not told.isprintable():
            raise FaultError(f"a finding that does not print: {told!r:.300}")
        place, _, line = finding.where.rpartition(":")
        if not finding.where.startswith((str(path), "command line")):
            raise FaultError(f"a finding at another place: {finding.where!r:.200}")
        if place == str(path) and not 1 <= int(line) <= last_line:
            raise FaultError(f"a finding at a line there is not: {finding.where}")


def _compare(resolved: Resolved, meaning: Meaning, path: Path, overrides: Sequence[str]) -> None:
    for dotted, rule in schema.keys().items():
        section, key = dotted.split(".")
        expected: Any = meaning.values.get((section, key), rule.get("default"))
        if rule["type"] == "number":
            expected = float(expected)
        if rule["type"] == "list":
            expected = list(expected)
        found, typed = resolved.values[section][key], getattr(getattr(resolved.settings, section), key)
        typed = list(typed) if isinstance(typed, tuple) else typed
        if rule["type"] == "switch" and expected == "auto":  # the settings say false until it is decided
            typed = typed or expected
        if not (_same(found, expected) and _same(typed, expected)):
            raise FaultError(_with_overrides(f"{dotted} is {found!r:.80} and says {expected!r:.80}", overrides))
        line = meaning.lines.get((section, key))
        origin = DEFAULT if line is None else f"{path}:{line}" if line else "command line"
        if resolved.origins[dotted] != origin:
            raise FaultError(f"{dotted} comes from {origin} and is said to come from {resolved.origins[dotted]}")


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other
