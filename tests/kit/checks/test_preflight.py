"""Everything that can be found before a run starts is a finding: model, data, and the folder the run writes to."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kit.checks import preflight
from kit.checks.preflight import Preflight, check_run, leakage, run_directory_findings
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.data.dataset import load_file
from kit.data.token_rows import TokenRows
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.plan import alternatives
from kit.plan.rows import workloads_for
from kit.plan.run_plan import plan_run
from kit.stacks.stack import stack_of
from small_base import write_base

if TYPE_CHECKING:
    from chat_folders import ChatFolder
    from kit.cli.findings import Finding
    from kit.config.resolve import Resolved
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.plan.run_plan import RunPlan

DEMO = PROJECT_ROOT / "configs" / "training_config_demo.yaml"
MACHINE = machines.read(PROJECT_ROOT / "tests" / "fixtures" / "machines" / "h100_80gb.json")
STACK = stack_of({"torch": "2.10.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2"})


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _rows(path: Path, *answers: str) -> Path:
    rows = [{"prompt": f"ask {answer}", "completion": answer} for answer in answers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _resolved(base: Path | str, train: Path | str, val: Path | str | None, **training: Any) -> Resolved:
    values = {
        "model.model_name_or_path": str(base),
        "data.train_file": str(train),
        "data.val_file": None if val is None else str(val),
        "training.output_dir": "run",
        **{f"training.{key}": value for key, value in training.items()},
    }
    return resolve(DEMO, values)


def _check(resolved: Resolved, *, download: bool = False) -> tuple[Preflight, dict[str, list[Finding]]]:
    result = check_run(resolved, judge(MACHINE), MACHINE, STACK, download=download)
    found: dict[str, list[Finding]] = {}
    for finding in result.findings:
        found.setdefault(finding.id, []).append(finding)
    assert not [name for name in found if name.endswith(".crashed")]
    return result, found


def test_what_is_left_to_the_data_is_decided_by_it_before_memory_and_time_are_planned(
    chat_folder: ChatFolder, tmp_path: Path
) -> None:
    base = write_base(chat_folder(), max_position_embeddings=512)
    train = _rows(tmp_path / "train.jsonl", *("a" * size for size in (1, 40, 80, 120)))
    changes = {"padding_free": "auto", "bf16": True, "per_device_train_batch_size": 4}
    result, found = _check(_resolved(base, train, None, **changes, gradient_accumulation_steps=1))
    assert result.resolved.settings.training.padding_free is True
    assert " at 1 x 90 tokens" in found["config.memory"][0].message
    (told,) = found["config.levers.auto"]
    assert "auto" not in told.where
    assert told.severity == "ok"
    assert told.message.startswith("training.padding_free is auto, and true here: ")
    even = _rows(tmp_path / "even.jsonl", "a", "b", "c", "d")
    result, found = _check(_resolved(base, even, None, **changes, gradient_accumulation_steps=1))
    assert result.resolved.settings.training.padding_free is False
    assert "less than 5%" in found["config.levers.auto"][0].message


def test_a_run_is_planned_once_with_the_rows_that_were_counted(
    chat_folder: ChatFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RunPlan] = []

    def planning(*args: Any) -> RunPlan:
        made.append(plan_run(*args))
        return made[-1]

    monkeypatch.setattr(alternatives, "plan_run", planning)
    base = write_base(chat_folder(), max_position_embeddings=512)
    train, val = _rows(tmp_path / "train.jsonl", "a", "b", "c"), _rows(tmp_path / "val.jsonl", "d")
    result, found = _check(_resolved(base, train, val))
    assert result.planned_run
    assert [result.planned_run.plan] == made
    assert result.planned_run.plan.is_counted
    assert len(found["config.memory"]) == len(found["run.time"]) == 1
    assert "config.duration" not in found


def test_a_good_run_is_loaded(chat_folder: ChatFolder, tmp_path: Path) -> None:
    train, val = _rows(tmp_path / "train.jsonl", "a", "b", "c"), _rows(tmp_path / "val.jsonl", "d")
    result, found = _check(_resolved(chat_folder(), train, val))
    assert result.tokenizer
    assert result.train
    assert result.val
    assert (len(result.train.rows), len(result.val.rows)) == (3, 1)
    for name in ("model.tokenizer", "data.rows", "data.leakage"):
        assert {finding.severity for finding in found[name]} == {"ok"}


def test_checks_and_plans_leave_the_rows_packed(
    chat_folder: ChatFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: Counter[bytes] = Counter()
    tokens_of = TokenRows.tokens_of

    def counting(rows: TokenRows, index: int) -> Any:
        unpacked[tokens_of(rows, index)[0].tobytes()] += 1
        return tokens_of(rows, index)

    monkeypatch.setattr(TokenRows, "tokens_of", counting)
    train, val = _rows(tmp_path / "train.jsonl", "a", "b", "c"), _rows(tmp_path / "val.jsonl", "d")
    resolved = _resolved(chat_folder(), train, val)
    result, _ = _check(resolved)
    assert set(unpacked.values()) == {1}  # to look for validation rows among those that are trained on
    assert result.train
    for size in (1, 2, 3):
        settings = replace(resolved.settings.training, per_device_train_batch_size=size, max_seq_length=12)
        workloads_for(resolved.settings, result.train.rows)[0](replace(resolved.settings, training=settings))
    order_batches(resolved.settings, result.train.rows)
    assert set(unpacked.values()) == {1}


def test_a_run_without_validation_rows_is_loaded(chat_folder: ChatFolder, tmp_path: Path) -> None:
    result, found = _check(_resolved(chat_folder(), _rows(tmp_path / "train.jsonl", "a"), None))
    assert result.train
    assert result.val is None
    assert "data.leakage" not in found


def test_a_file_in_the_home_folder_is_trained_on(
    chat_folder: ChatFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Passed over in silence, the validation rows would have been trained on in its place.
    monkeypatch.setenv("HOME", str(tmp_path))
    _rows(tmp_path / "train.jsonl", "a", "b")
    result, _ = _check(_resolved(chat_folder(), "~/train.jsonl", _rows(tmp_path / "val.jsonl", "c")))
    assert result.train
    assert len(result.train.rows) == 2


def test_a_pipe_is_refused_and_not_waited_for(chat_folder: ChatFolder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.jsonl")
    result, found = _check(_resolved(chat_folder(), tmp_path / "train.jsonl", None))
    assert result.train is None
    assert found["config.data.special"][0].severity == "error"


@pytest.mark.parametrize("kind", ["missing", "folder", "empty"])
def test_a_file_that_is_not_there_is_said_once(chat_folder: ChatFolder, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "train.jsonl"
    if kind == "folder":
        path.mkdir()
    if kind == "empty":
        path.touch()
    result, _ = _check(_resolved(chat_folder(), path, None))
    assert result.train is None
    errors = [finding for finding in result.findings if finding.severity == "error" and "data" in finding.id]
    assert len(errors) == 1


def test_a_file_that_stops_being_readable_is_an_error_and_no_bug(
    chat_folder: ChatFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(preflight, "load_file", fail)
    _, found = _check(_resolved(chat_folder(), _rows(tmp_path / "train.jsonl", "a"), None))
    assert found["data.unreadable"][0].message == "cannot be read (Input/output error)"


def test_problems_of_both_files_are_shown_at_once(chat_folder: ChatFolder, tmp_path: Path) -> None:
    for name in ("train.jsonl", "val.jsonl"):
        (tmp_path / name).write_text('{"text": 1}\n', encoding="utf-8")
    _, found = _check(_resolved(chat_folder(), tmp_path / "train.jsonl", tmp_path / "val.jsonl"))
    assert [finding.where for finding in found["data.row"]] == [
        f"{tmp_path}/train.jsonl:1",
        f"{tmp_path}/val.jsonl:1",
    ]
    assert not {"data.leakage", "data.duplicates"} & set(found), "nothing good is said of rows that there are not"


@pytest.mark.parametrize(
    ("name", "download", "identity"),
    [
        ("./none", False, "config.model.missing"),
        ("./none", True, "config.model.missing"),
        ("models/none", True, "config.model.missing"),
        ("a/b", False, "model.tokenizer"),
    ],
)
def test_a_model_that_is_not_there_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, download: bool, identity: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    result, found = _check(_resolved(name, _rows(tmp_path / "train.jsonl", "a"), None), download=download)
    assert result.tokenizer is None
    assert result.train is None
    (finding,) = found[identity]
    assert finding.severity == ("skipped" if name == "a/b" else "error")
    assert finding.fix
    assert sum(one.severity == "error" for one in result.findings) == (name != "a/b")


def test_a_base_without_a_chat_template_is_an_error_with_its_fix(chat_folder: ChatFolder, tmp_path: Path) -> None:
    _, found = _check(_resolved(chat_folder(None), _rows(tmp_path / "train.jsonl", "a"), None))
    (finding,) = found["model.tokenizer"]
    assert (finding.severity, finding.fix) == ("error", "use an instruct model")


def test_validation_rows_that_are_trained_on_are_named(byte_chat: ChatTokenizer, tmp_path: Path) -> None:
    train = load_file(_rows(tmp_path / "train.jsonl", "a", "b", "c"), byte_chat, 100)
    val = load_file(_rows(tmp_path / "val.jsonl", "x", "b", "y", "c"), byte_chat, 100)
    (finding,) = leakage(train, val)
    assert (finding.severity, finding.where) == ("warning", f"{val.path}:2")
    assert finding.message.startswith("2 of 4 validation rows are in")
    (fine,) = leakage(train, load_file(_rows(tmp_path / "other.jsonl", "x"), byte_chat, 100))
    assert fine.severity == "ok"


def test_the_same_words_in_another_shape_are_the_same_row(byte_chat: ChatTokenizer, tmp_path: Path) -> None:
    train = load_file(_rows(tmp_path / "train.jsonl", "a"), byte_chat, 100)
    other = tmp_path / "val.jsonl"
    other.write_text('{"instruction": "ask a", "output": "a"}\n', encoding="utf-8")
    assert leakage(train, load_file(other, byte_chat, 100))[0].severity == "warning"


def _folder(folder: Path, *, overwrite: bool = False) -> list[Finding]:
    settings = resolve(DEMO, {"training.output_dir": str(folder), "training.run_name": "first"}).settings
    return run_directory_findings(settings, overwrite=overwrite)


@pytest.mark.parametrize("depth", ["run", "outputs/a/b/run"])
def test_a_new_folder_is_fine_and_is_not_made_yet(tmp_path: Path, depth: str) -> None:
    assert _folder(tmp_path / depth) == []
    assert _folder(Path(depth)) == []
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_fine_and_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert _folder(tmp_path / "run") == []
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "checkpoints", "adapter"])
def test_an_earlier_run_is_not_lost_by_accident(tmp_path: Path, name: str) -> None:
    (tmp_path / "run" / name).mkdir(parents=True)
    (finding,) = _folder(tmp_path / "run")
    assert (finding.id, finding.severity) == ("run.exists", "error")
    assert name in finding.message
    assert "training.run_name=first-2" in finding.fix
    assert "--overwrite" in finding.fix
    assert _folder(tmp_path / "run", overwrite=True) == []
    assert (tmp_path / "run" / name).exists()


@pytest.mark.parametrize("folder", ["file", "file/run", "file/deeper/run"])
def test_a_file_in_the_way_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    (finding,) = _folder(tmp_path / folder)
    assert (finding.id, finding.severity, finding.where) == ("run.folder", "error", str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o500)
    assert "Permission denied" in _folder(tmp_path / "run")[0].message
    assert "Permission denied" in _folder(tmp_path / "run" / "deeper")[0].message


@pytest.mark.parametrize("method", ["mkdir", "touch", "exists"])
def test_a_folder_that_cannot_be_written_to_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    real = getattr(Path, method)

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if "run" in path.parts:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, method, refuse)
    (finding,) = _folder(tmp_path / "run")
    assert (finding.id, finding.message) == ("run.folder", "cannot be written to (Read-only file system)")
    assert list(tmp_path.iterdir()) == []


def test_a_name_the_disk_does_not_take_is_an_error(tmp_path: Path) -> None:
    (finding,) = _folder(tmp_path / ("x" * 300))
    assert finding.message == "cannot be written to (File name too long)"


@pytest.mark.parametrize(
    "name", [".lock", ".metrics.jsonl.partial", ".adapter.partial", "checkpoints", "metrics.jsonl"]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_among_a_runs_files_is_refused_and_what_it_leads_to_stays(
    tmp_path: Path, name: str, *, overwrite: bool
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(precious)
    (finding,) = _folder(tmp_path / "run", overwrite=overwrite)
    assert (finding.id, finding.severity, finding.where) == ("run.link", "error", str(tmp_path / "run" / name))
    assert str(precious) in finding.message


def test_a_runs_name_that_is_a_link_out_of_outputs_is_refused_unless_the_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere" / "first").mkdir(parents=True)
    Path("outputs").mkdir()
    Path("outputs/first").symlink_to(tmp_path / "elsewhere" / "first")
    settings = resolve(DEMO, {"training.run_name": "first", "training.output_dir": None}).settings
    (finding,) = run_directory_findings(settings, overwrite=True)
    assert (finding.id, finding.where) == ("run.link", "outputs/first")
    assert "training.output_dir=" in finding.fix
    assert _folder(Path("outputs/first")) == []


def test_outputs_itself_may_be_a_link_to_a_larger_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large-disk").mkdir()
    Path("outputs").symlink_to(tmp_path / "large-disk")
    settings = resolve(DEMO, {"training.run_name": "first", "training.output_dir": None}).settings
    assert run_directory_findings(settings, overwrite=False) == []
