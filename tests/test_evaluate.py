"""Evaluating a run from the command line."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

from kit.cli.command import call
from kit.commands import evaluate
from kit.files.digest import file_sha256
from small_run import read_metrics, run_training

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(adapter_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(adapter_run, tmp_path / "demo")
    return tmp_path / "demo"


def result(run: Path, name: str = "evaluation.json") -> dict[str, Any]:
    return dict(json.loads((run / name).read_text(encoding="utf-8")))


def test_an_evaluation_is_shown_and_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(evaluate, [str(run), "--cpu", "--max-new-tokens", "3"]) == 0
    output = capsys.readouterr()
    assert "perplexity" in output.out
    assert output.out.splitlines()[-1] == f"next: make chat RUN={run}"
    assert "asking 4 questions (all 4), answers up to 3 tokens" in output.err
    data = result(run)
    assert (data["schema_version"], data["rows"], data["questions"], len(data["samples"])) == (1, 4, 4, 4)
    assert data["base"]["loss"] != data["adapter"]["loss"]


def test_json_on_stdout_is_the_file_and_nothing_else(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(evaluate, [str(run), "--cpu", "--questions", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result(run)
    assert result(run)["samples"] == []


def test_other_data_goes_into_a_file_of_its_own_and_is_no_rival_of_the_validation_set(run: Path) -> None:
    shutil.copyfile(run / "val.jsonl", run / "test.jsonl")
    assert call(evaluate, [str(run), "--cpu", "--questions", "1", "--data", str(run / "test.jsonl")]) == 0
    assert result(run, "evaluation-test.json")["data"]["path"] == str(run / "test.jsonl")
    assert not (run / "evaluation.json").exists()


def test_rows_that_ask_nothing_are_counted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user", "assistant")]
    rows = [{"messages": [*turns[:3], {**turns[3], "weight": weight}]} for weight in (0, 1, 0)]
    (run / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert call(evaluate, [str(run), "--cpu", "--max-new-tokens", "1", "--data", str(run / "test.jsonl")]) == 0
    assert "2 rows end without a trained answer and are not asked" in capsys.readouterr().err


def test_four_bits_are_evaluated_in_four_bits(tiny_base: Path, tmp_path: Path) -> None:
    from adapter_run import make_run

    run = make_run(tiny_base, tmp_path / "demo", val_rows=2)
    assert call(evaluate, [str(run), "--cpu", "--questions", "0"]) == 0
    four_bits = result(run)
    assert four_bits["base_loaded_in"] == "4 bits (nf4)"
    assert call(evaluate, [str(run), "--cpu", "--questions", "0", "--unquantised"]) == 0
    assert result(run)["base"]["loss"] != four_bits["base"]["loss"]


def test_rows_that_cannot_be_used_are_named_and_nothing_is_loaded(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (run / "val.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"prompt": "cut o')
    assert call(evaluate, [str(run), "--cpu", "--data", str(run / "val.jsonl")]) == 1
    error = capsys.readouterr().err
    assert "val.jsonl:5" in error
    assert "not evaluated" in error
    assert not list(run.glob("evaluation*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-run"], "no-such-run: no such run directory"),
        (["{run}", "--data", "no-such-file"], "no-such-file: no such file\n  fix: name one: --data FILE"),
        (["{run}", "--adapter", "{run}/nothing"], "has no adapter_config.json"),
        (
            ["{run}", "--cpu", "--out", "{run}/val.jsonl"],
            "val.jsonl: exists and is not an evaluation\n  fix: name",
        ),
    ],
)
def test_a_mistake_is_a_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert call(evaluate, [argument.format(run=run) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_questions_longer_than_the_model_are_counted_and_left_out(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(evaluate, [str(run), "--cpu", "--max-new-tokens", "500"]) == 0
    assert "4 questions skipped" in capsys.readouterr().err
    assert result(run)["questions"] == 0


@pytest.mark.slow
def test_the_adapters_loss_is_the_one_the_run_ended_with(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    done = run_training(
        tiny_base,
        run,
        python=sys.executable,
        training__max_steps=3,
        training__learning_rate=0.01,
        training__per_device_eval_batch_size=7,
    )
    assert done.returncode == 0, done.stderr
    assert call(evaluate, [str(run), "--cpu", "--questions", "2", "--max-new-tokens", "2", "--batch-size", "32"]) == 0
    data = result(run)
    recorded = [line["eval_loss"] for line in read_metrics(run) if "eval_loss" in line][-1]
    assert data["adapter"]["loss"] == pytest.approx(recorded, rel=1e-5)
    assert data["run_eval_loss"] == recorded
    assert data["base"]["loss"] > recorded + 0.1
    assert f"the run's own last evaluation was {recorded:.4f}: the same\n" in capsys.readouterr().err
    assert abs(data["adapter"]["loss"] - recorded) < data["loss_rounding"] < 1e-3 * recorded


def ended_at(run: Path, loss: float, **receipt: object) -> None:
    """Have the run end with a loss on its validation set."""
    path = run / "run.json"
    found = json.loads(path.read_text(encoding="utf-8")) | {"eval_loss": loss, **receipt}
    found["data"] = [{"path": "val.jsonl", "sha256": file_sha256(run / "val.jsonl")}]
    path.write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.parametrize(
    ("factor", "receipt", "said"),
    [
        (1.0, {}, "{0:.4f}: the same\n"),
        (1.0, {"compute": {"threads": 99}}, "{0:.4f}: the same within rounding; threads is 1 here, was 99\n"),
        (1.001, {}, "this one is {1:.4f}, and rounding explains "),
        (0.999, {"stack": "neither"}, ": trained on the neither stack, evaluated on the"),
        (0.9925, {}, "the base, the adapter or a package changed since the run"),
    ],
)
def test_the_same_is_what_rounding_explains(
    run: Path, capsys: pytest.CaptureFixture[str], factor: float, receipt: dict[str, object], said: str
) -> None:
    assert call(evaluate, [str(run), "--cpu", "--questions", "0"]) == 0
    loss = result(run)["adapter"]["loss"]
    ended_at(run, loss * factor, **receipt)
    capsys.readouterr()
    assert call(evaluate, [str(run), "--cpu", "--questions", "0"]) == 0
    assert said.format(loss * factor, loss) in capsys.readouterr().err
