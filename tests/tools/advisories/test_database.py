"""A saved database says what the format says, of the versions it says it about, and never more than it knows."""

from __future__ import annotations

import json
import zipfile
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from kit.stacks.locks import REFERENCE
from tools.advisories.database import DatabaseError, look_up, read_database

if TYPE_CHECKING:
    from pathlib import Path

    from tools.advisories.answer import Vulnerability


def record(id: str = "PYSEC-1", package: str = "Some_Package", **affected: Any) -> dict[str, Any]:  # noqa: A002
    entry = {"package": {"ecosystem": "PyPI", "name": package}, **affected}
    return {"id": id, "modified": "2026-11-01T00:00:00Z", "affected": [entry]}


def between(*events: dict[str, str], kind: str = "ECOSYSTEM") -> dict[str, Any]:
    return {"ranges": [{"type": kind, "events": list(events)}]}


def known(folder: Path, version: str, *records: dict[str, Any]) -> tuple[Vulnerability, ...]:
    for number, item in enumerate(records):
        (folder / f"{number}.json").write_text(json.dumps(item), encoding="utf-8")
    database = read_database(folder, ["some-package"])
    return look_up(database, REFERENCE, {"some-package": version}, "saved").vulnerabilities


@pytest.mark.parametrize(
    ("version", "is_affected"),
    [
        ("1.0", False),
        ("1.1", True),
        ("1.1.post1", True),
        ("1.9", True),
        ("2.0rc1", True),
        ("2.0", False),
        ("3.0", False),
    ],
)
def test_a_range_ends_before_its_fix(tmp_path: Path, version: str, *, is_affected: bool) -> None:
    found = known(tmp_path, version, record(**between({"introduced": "1.1"}, {"fixed": "2.0"})))
    assert bool(found) == is_affected
    assert not found or found[0].fixed_in == ("2.0",)


@pytest.mark.parametrize(
    ("version", "is_affected"), [("0.1", True), ("1.5", True), ("1.6", False), ("2.1", True), ("2.3", False)]
)
def test_several_ranges_and_a_last_affected_version(tmp_path: Path, version: str, *, is_affected: bool) -> None:
    events = ({"introduced": "0"}, {"last_affected": "1.5"}, {"introduced": "2.0"}, {"fixed": "2.3"})
    assert bool(known(tmp_path, version, record(**between(*events)))) == is_affected


def test_a_listed_version_counts_and_a_range_of_commits_does_not(tmp_path: Path) -> None:
    item = record(versions=["1.0", "1.2"], **between({"introduced": "0"}, kind="GIT"))
    assert known(tmp_path, "1.2.0", item)
    assert not known(tmp_path, "1.1", item)


@pytest.mark.parametrize("package", ["some.package", "SOME-PACKAGE", "some_package"])
def test_names_are_compared_as_an_index_does(tmp_path: Path, package: str) -> None:
    assert known(tmp_path, "1.0", record(package=package, versions=["1.0"]))


def test_withdrawn_ones_other_packages_and_other_ecosystems_are_nobodys(tmp_path: Path) -> None:
    withdrawn = {**record(versions=["1.0"]), "withdrawn": "2026-01-01T00:00:00Z"}
    other = record(package="other", versions=["1.0"])
    npm = record(versions=["1.0"])
    npm["affected"][0]["package"]["ecosystem"] = "npm"
    assert known(tmp_path, "1.0", withdrawn, other, npm) == ()


def test_one_vulnerability_under_several_numbers_is_one(tmp_path: Path) -> None:
    python = {**record("PYSEC-1", versions=["1.0"]), "aliases": ["CVE-2026-1", "GHSA-x"]}
    github = {**record("GHSA-x", versions=["1.0"]), "aliases": ["CVE-2026-1"]}
    (found,) = known(tmp_path, "1.0", python, github)
    assert found.best_name == "CVE-2026-1"


def test_a_checkout_in_yaml_an_archive_and_a_single_file_say_the_same(tmp_path: Path) -> None:
    text = (
        'id: PYSEC-1\nmodified: "2026-11-01T00:00:00Z"\naffected:\n- package:\n    name: some-package\n'
        "    ecosystem: PyPI\n  versions:\n  - '1.0'\n"
    )
    folder = tmp_path / "vulns" / "some-package"
    folder.mkdir(parents=True)
    (folder / "PYSEC-1.yaml").write_text(text)
    (folder / "README.md").write_text("not a record")
    single = tmp_path / "one.json"
    single.write_text(json.dumps([record(versions=["1.0"])]))
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../PYSEC-1.json", json.dumps(record(versions=["1.0"])))
    for path in (tmp_path / "vulns", single, archive):
        database = read_database(path, ["some-package"])
        assert (database.count, database.newest) == (1, date(2026, 11, 1))
        assert look_up(database, REFERENCE, {"some-package": "1.0"}, "saved").vulnerabilities
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.zip", "one.json", "vulns"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "no JSON"),
        ("a.json", "[" * 100_000, "no JSON"),
        ("a.yaml", "modified: '2026-01-01'\nname: some-package\na: &a [x]\nb: [*a, *a]\n", "aliases"),
        ("a.yaml", "modified: '2026-01-01'\nname: some-package\na: !!python/object:os.system x\n", "no YAML"),
        ("a.txt", "nothing", "holds no advisory"),
        ("a.json", '{"hello": 1}', "holds no advisory"),
    ],
)
def test_what_is_no_database_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DatabaseError, match=words):
        read_database(tmp_path, ["some-package"])


def test_a_version_that_is_none_is_unchecked_and_not_passed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record(versions=["1.0"])))
    answer = look_up(read_database(tmp_path, ["some-package"]), REFERENCE, {"some-package": "not-one"}, "saved")
    assert "some-package" in answer.unchecked


@pytest.mark.parametrize("packed", [False, True])
def test_a_record_too_large_to_be_one_is_refused_and_not_left_out(tmp_path: Path, packed: bool) -> None:
    text = json.dumps({**record(), "details": "a" * 4_000_000})
    path = tmp_path / "all.zip" if packed else tmp_path / "records"
    if packed:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("large.json", text)
    else:
        path.mkdir()
        (path / "large.json").write_text(text, encoding="utf-8")
    with pytest.raises(DatabaseError, match=r"holds large.json, which is over 4 MB"):
        read_database(path, ["some-package"])
