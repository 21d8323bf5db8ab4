"""`make audit` says what is known, and what it could not find out: an audit that reached nobody is no "ok"."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from kit.stacks.locks import DEV, UV
from tools import audit
from tools.advisories import service

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pip_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for pip-audit: it answers as the real one does, with what a test tells it to say."""
    program = tmp_path / "pip-audit"

    def answers(body: str) -> None:
        program.write_text(
            "#!/usr/bin/env python3\nimport json, sys\n"
            "path = sys.argv[sys.argv.index('--requirement') + 1]\n"
            "pins = [line.strip().split('==') for line in open(path)]\n"
            f"{body}\n"
        )
        program.chmod(0o755)

    monkeypatch.setattr(audit, "ensure_pip_audit", lambda _root: program)
    return answers


KNOWN = "print(json.dumps({'dependencies': [{'name': n, 'version': v, 'vulns': []} for n, v in pins], 'fixes': []}))"
UNKNOWN = (
    "print(json.dumps({'dependencies': [{'name': n, 'skip_reason': 'Dependency not found'} for n, v in pins]}))\n"
    "print('No known vulnerabilities found', file=sys.stderr)"
)
BAD = (
    "vulns = [{'id': 'PYSEC-9', 'fix_versions': ['9.9'], 'aliases': ['CVE-2026-9']}]\n"
    "print(json.dumps({'dependencies': [{'name': n, 'version': v, 'vulns': vulns} for n, v in pins]}))\nsys.exit(1)"
)
DOWN = "print('ERROR:pip_audit._cli:Could not connect to the vulnerability feed', file=sys.stderr)\nsys.exit(1)"


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = audit.main(arguments)
    return code, capsys.readouterr().out


def test_where_every_package_was_looked_up_and_nothing_is_known_it_passes(
    pip_audit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pip_audit(KNOWN)
    code, out = _run(capsys, "--lock", "uv")
    assert code == 0
    assert out.splitlines()[-1].startswith("nothing to mend in what the locks pin")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (UNKNOWN, "the service does not know it, or has no advisories to give"),
        (DOWN, "the service cannot be reached"),
        ("print('{}')", "it said nothing"),
        ("sys.exit(9)", "it said nothing"),
    ],
)
def test_a_service_that_knows_or_says_nothing_is_no_pass(
    pip_audit: Any, capsys: pytest.CaptureFixture[str], body: str, reason: str
) -> None:
    pip_audit(body)
    code, out = _run(capsys, "--lock", "uv", "--lock", "dev")
    assert code == 77
    assert reason in out
    for lock in (UV, DEV):
        assert f"{lock.target}: not checked: none of its" in out
    assert "this is no audit" in out.splitlines()[-1]


def test_a_vulnerability_fails_and_names_version_and_fix(pip_audit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pip_audit(BAD)
    code, out = _run(capsys, "--lock", "uv", "--json")
    body = json.loads(out)
    assert (code, body["schema_version"], body["verdict"]) == (1, 1, "failed")
    assert body["locks"] == {UV.target: {"packages": 1, "unchecked": 0, "vulnerabilities": 1}}
    (finding,) = (finding for finding in body["findings"] if finding["severity"] == "error")
    assert finding["message"].endswith("CVE-2026-9 (PYSEC-9)")
    assert "9.9" in finding["fix"]


def test_what_could_not_be_looked_up_is_incomplete_in_json(pip_audit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pip_audit(UNKNOWN)
    code, out = _run(capsys, "--lock", "uv", "--json")
    assert (code, json.loads(out)["verdict"]) == (77, "incomplete")


def test_every_pin_is_asked_about_without_its_marker(pip_audit: Any, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    pip_audit(f"open({str(seen)!r}, 'w').write(repr((sys.argv[1:], pins)))\n{KNOWN}")
    audit.main(["--lock", "dev"])
    text = seen.read_text()
    assert "--no-deps" in text
    assert "--disable-pip" in text
    assert ";" not in text
    assert "colorama" not in text or "sys_platform" not in text


def _database(path: Path, day: str) -> Path:
    (path / "a.json").write_text(json.dumps({"id": "X", "modified": f"{day}T00:00:00Z", "affected": []}))
    return path / "a.json"


def test_a_fresh_saved_database_needs_no_network_and_no_tool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "ensure_pip_audit", None)
    today = str(datetime.now(UTC).date())
    code, out = _run(capsys, "--from", str(_database(tmp_path, today)))
    assert code == 0, out


def test_an_old_saved_database_is_no_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = _run(capsys, "--from", str(_database(tmp_path, "2020-01-01")))
    assert code == 77
    assert "what was published since is not checked" in out


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_database_that_is_none_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    assert audit.main(["--from", str(path)]) == 2
    assert "fix: name a folder of OSV records" in capsys.readouterr().err


def test_the_certificate_that_pip_trusts_is_the_services_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CERT", os.devnull)
    assert service._environment()["REQUESTS_CA_BUNDLE"] == os.devnull
