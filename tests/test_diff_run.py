"""`make diff-run`: two runs by name, folder or newest; what is shown, as text and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kit.cli.command import call
from kit.commands import diff_run
from written_run import RESOLVED, write_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    config = RESOLVED.settings.as_mapping()
    other = {**config, "training": {**config["training"], "learning_rate": 0.5, "run_name": "b"}}
    write_run(tmp_path / "a", loss=lambda _: 1.0)
    write_run(tmp_path / "b", loss=lambda _: 2.0, config=other, packages={"torch": "2.1.0", "peft": "0.21.2"})
    return tmp_path


def test_two_runs_are_compared_in_what_they_ran_with_and_what_came_of_it(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(diff_run, ["a", "b", "--outputs", str(outputs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    differing = {(row["group"], row["name"]): (row["first"], row["second"]) for row in found["differences"]}
    assert differing == {
        ("config", "training.learning_rate"): ("0.002", "0.5"),
        ("stack", "torch"): ("2.10.0", "2.1.0"),
    }
    assert {"loss": ("1.0000", "2.0000")}.items() <= {
        row["name"]: (row["first"], row["second"]) for row in found["results"]
    }.items()
    assert found["traces"]["training loss"]["first_difference"] == {
        "step": 1, "first": 1.0, "second": 2.0, "absolute": 1.0, "relative": 0.5,
    }  # fmt: skip
    assert found["verdict"] == "The training losses differ from step 1 on, there by 50%; likely cause: torch."


def test_a_key_that_one_of_them_is_older_than_had_its_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RESOLVED.settings.as_mapping()
    older = {**config, "training": {key: value for key, value in config["training"].items() if key != "weight_decay"}}
    change = {"step": 4, "key": "threads", "was": 1, "is": 2}
    write_run(tmp_path / "a", config=older, loss=lambda _: 1.0)
    write_run(tmp_path / "b", compute_changes=[change], loss=lambda _: 2.0)
    assert call(diff_run, ["a", "b", "--outputs", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["differences"]
    assert (row["group"], row["name"], row["second"]) == (
        "machine",
        "computed otherwise before",
        "threads 1 until step 4",
    )
    assert "computed otherwise before" in found["verdict"]


def test_the_text_says_what_is_the_same_and_ends_in_the_verdict(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(diff_run, ["a", "b", "--outputs", str(outputs)]) == 0
    shown = capsys.readouterr().out
    assert {"data: the same", "code: the same", "machine: the same", "image: the same"} <= set(shown.splitlines())
    assert any(line.split() == ["loss", "1.0000", "2.0000"] for line in shown.splitlines())
    assert shown.splitlines()[-1].startswith("The training losses differ from step 1 on")


def test_folders_do_as_well_as_names_and_the_newest_is_the_default(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([str(outputs / "a"), str(outputs / "b")], ["a", "newest"], ["a"]):
        assert call(diff_run, [*arguments, "--outputs", str(outputs)]) == 0
        assert "differ from step 1 on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "said"), [(("a", "gud"), "gud: no such run directory"), (("a", "a"), "a and a are the same run")]
)
def test_what_cannot_be_compared_is_wrong_use(
    outputs: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, str], said: str
) -> None:
    assert call(diff_run, [*names, "--outputs", str(outputs)]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""
