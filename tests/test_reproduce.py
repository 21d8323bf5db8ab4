"""A real run is made again from its receipt, through the real command: on the same machine its bits come out again."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import reproduce as command
from kit.commands import train
from kit.files.json_files import write_json
from kit.run_directory.receipt import sealed
from small_run import CONFIG, overrides, read_receipt

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, its data and its base."""
    folder = tmp_path_factory.mktemp("reproduced")
    shutil.copytree(tiny_base, folder / "base")
    for name, rows in (("train", 40), ("val", 4)):
        lines = (PROJECT_ROOT / f"data/sample/{name}.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = {"data__train_file": folder / "train.jsonl", "data__val_file": folder / "val.jsonl"}
    changes = {**files, "training__max_steps": 3, "training__eval_steps": 2}
    assert call(train, [str(CONFIG), *overrides(folder / "base", folder / "run", **changes)]) == 0
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """The run alone, to be changed; its data and its base stay where they were."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def _change(run: Path, **facts: Any) -> None:
    content = read_receipt(run)
    del content["sha256"]
    write_json(run / "run.json", sealed({**content, **facts}))


def _checked(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = call(command, [str(run), "--check-only", "--json", *options])
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert content["schema_version"] == 1
    return code, content


def test_a_run_is_reproduced_bit_by_bit(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, [str(trained / "run"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["result"]["sentence"] == "bit-equal: the adapter, 3 training losses, 2 validation losses"
    assert content["result"]["bits_expected"] is True
    again = trained / "run-reproduced"
    assert json.loads((again / "reproduction.json").read_text(encoding="utf-8"))["verdict"] == "bit-equal"
    then, now = read_receipt(trained / "run"), read_receipt(again)
    for key in ("adapter_sha256", "adapter_init_sha256", "loss_trace_sha256", "identity", "compute", "lock"):
        assert then[key] == now[key], key


def test_before_it_trains_it_says_whether_bits_must_come_out_again(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, [str(trained / "run"), "--check-only"]) == 0
    assert "can be reproduced here: the result must be bit-equal" in capsys.readouterr().out


def test_changed_data_ends_it_and_the_file_is_named(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = trained / "train.jsonl"
    before = data.read_text(encoding="utf-8")
    try:
        data.write_text(before.replace("a", "b", 1), encoding="utf-8")
        code, content = _checked(trained / "run", capsys)
    finally:
        data.write_text(before, encoding="utf-8")
    (found,) = (finding for finding in content["findings"] if finding["severity"] == "error")
    assert (code, content["verdict"], found["id"], found["where"]) == (1, "failed", "reproduce.data", str(data))


def test_another_version_of_a_dependency_is_a_warning(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages = read_receipt(copy)["packages"]
    assert isinstance(packages, dict)
    _change(copy, packages={**packages, "peft": "0.1.0"})
    code, content = _checked(copy, capsys)
    (found,) = (finding for finding in content["findings"] if finding["severity"] == "warning")
    assert (code, content["bits_expected"], found["id"]) == (0, False, "reproduce.packages")
    assert ", was 0.1.0" in found["message"]


def test_a_loss_trace_that_was_edited_is_noticed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"loss": 5', '"loss": 4', 1), encoding="utf-8")
    code, content = _checked(copy, capsys)
    assert code == 1
    assert [finding["where"] for finding in content["findings"] if finding["severity"] == "error"] == [str(path)]


def test_a_trace_that_does_not_come_out_again_is_told_with_its_step(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def retrained(config: Path, **_options: object) -> int:
        shutil.copytree(copy, config.parent, dirs_exist_ok=True)
        path = config.parent / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        lines[1]["loss"] += 1e-6
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return 0

    monkeypatch.setattr(command, "train_again", retrained)
    assert call(command, [str(copy)]) == 1
    told = capsys.readouterr().out
    assert "differs from step 2 on" in told
    assert "so the result should be bit-equal" in told


@pytest.mark.parametrize(("ended", "code"), [(130, 130), (143, 143), (1, 1), (2, 1), (137, 1)])
def test_a_rerun_that_did_not_come_to_its_end_is_not_compared(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ended: int, code: int
) -> None:
    monkeypatch.setattr(command, "train_again", lambda *_args, **_options: ended)
    assert call(command, [str(copy)]) == code
    assert capsys.readouterr().out == ""


def test_the_folder_of_the_rerun_can_be_chosen_and_is_never_somebody_elses(
    copy: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, [str(copy), "--out", str(trained / "run")]) == 1
    assert f"{trained / 'run'}: holds something other than a rerun" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["training.seed=3", "data.train_file=", "data.train_file"])
def test_what_would_make_it_another_run_is_wrong_use(
    copy: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    assert call(command, [str(copy), given]) == 2
    assert "give only new paths" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, [str(tmp_path / "nowhere")]) == 2
    assert "no such run directory" in capsys.readouterr().err
