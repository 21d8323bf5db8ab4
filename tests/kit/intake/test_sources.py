"""What an input names: each file once and in order, with findings on the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kit.intake.sources import Source, find_sources, suffix_of


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def _found(*inputs: str, **more: Path) -> tuple[list[str], dict[str, str]]:
    sources, findings = find_sources(list(inputs), **more)
    return [source.name for source in sources], {finding.id: finding.where for finding in findings}


def test_files_folders_and_globs_are_read_in_a_fixed_order() -> None:
    _touch("d/b.jsonl", "d/a.csv.gz", "d/sub/c.parquet", "e2.json", "e1.json", "x.jsonl")
    assert _found("x.jsonl", "d", "e*.json") == (
        ["x.jsonl", "d/a.csv.gz", "d/b.jsonl", "d/sub/c.parquet", "e1.json", "e2.json"],
        {},
    )


def test_what_is_no_data_is_said_and_hidden_files_are_not_looked_at() -> None:
    _touch("d/a.jsonl", "d/README.md", "d/.hidden.jsonl", "d/_SUCCESS", "d/data_card.json", "d/rejects.jsonl")
    sources, findings = find_sources(["d"])
    assert [source.name for source in sources] == ["d/a.jsonl"]
    (finding,) = findings
    assert (finding.id, finding.severity) == ("data.other_files", "skipped")
    assert finding.message == "3 files of other kinds were not read: README.md, data_card.json, rejects.jsonl"


def test_a_file_is_read_once_however_often_it_is_named() -> None:
    _touch("a.jsonl")
    Path("link.jsonl").symlink_to("a.jsonl")
    assert _found("a.jsonl", "./a.jsonl", "*.jsonl") == (["a.jsonl"], {"data.same_file": "link.jsonl"})


def test_a_folder_that_leads_back_into_itself_is_an_error() -> None:
    _touch("d/sub/a.jsonl")
    Path("d/sub/back").symlink_to("..", target_is_directory=True)
    assert _found("d") == (["d/sub/a.jsonl"], {"data.folder_loop": "d/sub/back"})


def test_a_linked_folder_beside_is_followed() -> None:
    _touch("elsewhere/a.jsonl", "d/b.jsonl")
    Path("d/more").symlink_to("../elsewhere", target_is_directory=True)
    assert _found("d")[0] == ["d/b.jsonl", "d/more/a.jsonl"]


@pytest.mark.parametrize("name", ["none.jsonl", "none*.jsonl", "d/none", "a/b/c", "x" * 300, "a\0b"])
def test_what_is_not_there_is_an_error(name: str) -> None:
    Path("d").mkdir()
    names, findings = _found(name)
    assert names == []
    assert set(findings) <= {"data.missing", "data.unreadable"}
    assert findings


def test_a_folder_without_data_is_an_error() -> None:
    _touch("d/notes.txt")
    assert _found("d")[1] == {"data.other_files": "d", "data.missing": "d"}


def test_links_that_lead_nowhere_are_errors() -> None:
    Path("a.jsonl").symlink_to("gone.jsonl")
    Path("d").mkdir()
    Path("d/self.jsonl").symlink_to("self.jsonl")
    assert _found("a.jsonl", "d")[1] == {"data.unreadable": "d/self.jsonl"}
    _, findings = find_sources(["a.jsonl"])
    assert [finding.where for finding in findings] == ["a.jsonl"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into everything")
def test_a_folder_that_may_not_be_looked_into_is_an_error() -> None:
    _touch("d/sub/a.jsonl")
    Path("d/sub").chmod(0)
    assert "data.unreadable" in _found("d")[1]
    Path("d/sub").chmod(0o755)


def test_standard_input_and_datasets_are_named_by_their_signs() -> None:
    sources, findings = find_sources(["-", "hf:owner/name", "owner/other", "hf:./folder"])
    assert findings == []
    assert sources == [
        Source("stdin", "stdin"),
        Source("hf:owner/name", "hub", "owner/name"),
        Source("hf:owner/other", "hub", "owner/other"),
        Source("hf:./folder", "hub", "./folder"),
    ]
    assert find_sources(["-", "-"])[1][0].id == "data.input"


def test_the_folder_that_is_written_to_is_not_read() -> None:
    _touch("d/a.jsonl", "d/processed/train.jsonl")
    names, findings = _found("d", exclude=Path("d/processed"))
    assert (names, findings) == (["d/a.jsonl"], {"data.own_output": "d/processed"})


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.jsonl", ".jsonl"), ("A.JSON.GZ", ".json"), ("a.csv.gz.zst", ".csv"), ("a", ""), ("a.gz", "")],
)
def test_the_suffix_behind_compressions_names_the_format(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


@pytest.mark.parametrize("pattern", ["d", "d/**/*.jsonl", "**/*.jsonl", "d/*/**/*.jsonl"])
def test_folders_that_links_name_in_many_ways_are_read_once(pattern: str) -> None:
    levels = 7  # two million ways
    _touch(*(f"d/{level}/{level}.jsonl" for level in range(levels)))
    for level in range(levels - 1):
        for link in range(8):
            Path(f"d/{level}/to{link}").symlink_to(f"../{level + 1}", target_is_directory=True)
    sources, _ = find_sources([pattern])
    assert len(sources) == levels


@pytest.mark.parametrize("name", ["d", "d/a.jsonl", "d/*.jsonl", "d/zero.jsonl"])
def test_what_waits_or_never_ends_is_an_error(name: str) -> None:
    Path("d").mkdir()
    os.mkfifo("d/a.jsonl")
    Path("d/zero.jsonl").symlink_to("/dev/zero")
    sources, findings = find_sources([name])
    assert sources == []
    assert {(finding.id, finding.message) for finding in findings} == {
        ("data.unreadable", "is a pipe, a socket or a device, not a regular file")
    }
