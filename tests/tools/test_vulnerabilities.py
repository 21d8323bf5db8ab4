"""`make audit` passes only where pip-audit looked up everything, and ignores only what was accepted, for a time."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from kit.config.error import ConfigError
from kit.stacks.locks import REFERENCE, UV
from tools import vulnerabilities

if TYPE_CHECKING:
    from pathlib import Path

TABLE = "print('torch 2.1.0 PYSEC-9 9.9 CVE-2026-9\\x1b[2J')\nprint('Found 1 known', file=sys.stderr)\nsys.exit(1)"
ENTRY = {
    "id": "CVE-2026-1",
    "package": "torch",
    "version": '"2.1.0"',
    "reason": "the kit does not reach that code",
    "expires": "2027-04-30",
}


@pytest.fixture
def pip_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for pip-audit: it answers as the real one does, with what a test tells it to say."""
    program = tmp_path / "pip-audit"

    def answers(body: str) -> None:
        program.write_text(f"#!/usr/bin/env python3\nimport sys\n{body}\n")
        program.chmod(0o755)

    monkeypatch.setattr(vulnerabilities, "ensure_tool", lambda *_, **__: program)
    return answers


@pytest.mark.parametrize(
    ("body", "code", "verdict"),
    [
        ("print('No known vulnerabilities found', file=sys.stderr)", 0, "nothing to fix"),
        (TABLE, 1, "something to fix"),
        (f"if {UV.target!r} in sys.argv: sys.exit(1)\n{TABLE}", 1, "something to fix"),
        ("print('ERROR: torch: not found', file=sys.stderr)\nsys.exit(1)", 2, "this is no audit"),
        ("sys.exit(9)", 2, "this is no audit"),
    ],
    ids=["clean", "vulnerable", "vulnerable-and-unknown", "unknown", "silent"],
)
def test_only_an_audit_of_everything_passes(
    pip_audit: Any, capsys: pytest.CaptureFixture[str], body: str, code: int, verdict: str
) -> None:
    pip_audit(body)
    assert vulnerabilities.main(["--lock", "uv", "--lock", "reference"]) == code
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    assert verdict in line
    assert all(f"{lock.target}: " in err for lock in (UV, REFERENCE))
    assert "\x1b" not in err


def test_each_lock_is_asked_about_with_what_was_accepted_of_its_versions(pip_audit: Any, tmp_path: Path) -> None:
    pip_audit(f"open({str(tmp_path / 'seen')!r}, 'a').write(' '.join(sys.argv) + '\\n')")
    vulnerabilities.main([])
    seen = (tmp_path / "seen").read_text().splitlines()
    assert len(seen) == len(vulnerabilities.LOCKS)
    assert all("--strict" in line for line in seen)
    assert [line for line in seen if "--ignore-vuln=CVE-2025-32434" in line] == [
        line for line in seen if REFERENCE.target in line
    ]


def _read(path: Path, **changes: str | None) -> list[dict[str, Any]]:
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    body = "\n    ".join(f"{key}: {value}" for key, value in entry.items())
    path.write_text(f"accepted:\n  - {body}\n", encoding="utf-8")
    return vulnerabilities.read_accepted(path, {("torch", "2.1.0")}, date(2026, 11, 23))


def test_an_accepted_entry_is_read(tmp_path: Path) -> None:
    assert _read(tmp_path / "a.yaml") == [{**ENTRY, "version": "2.1.0", "expires": date(2027, 4, 30)}]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"reason": None}, "required field"),
        ({"why": "x"}, "unknown field"),
        ({"reason": "wontfix"}, "min length"),
        ({"version": "2.1"}, "must be of string type"),
        ({"expires": "soon"}, "Invalid isoformat"),
        ({"expires": "2028-01-01"}, "max value"),
        ({"expires": "2026-10-01"}, "accepted until 2026-10-01, which is over"),
        ({"version": '"2.1.1"'}, "torch 2.1.1 was accepted, and no lock pins that"),
    ],
)
def test_an_entry_without_reason_or_end_or_for_another_version_is_refused(
    tmp_path: Path, changes: dict[str, str | None], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        _read(tmp_path / "a.yaml", **changes)


def test_nothing_is_asked_while_the_list_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vulnerabilities, "FILE", "pyproject.toml")
    monkeypatch.setattr(vulnerabilities, "ensure_tool", None)
    assert vulnerabilities.main([]) == 1
