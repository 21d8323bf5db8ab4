from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import train
from kit.run_directory import checkpoints
from small_run import CONFIG, deviations, losses, overrides, read_metrics, read_receipt, run_training, train_command
from terminal import Terminal
from torture.forked import end_threads, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow


def _train(base: Path, output: Path, *options: str, **changes: object) -> int:
    return call(train, [str(CONFIG), *overrides(base, output, **changes), *options])


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    assert _train(tiny_base, output, training__max_steps=3) == 0
    return output


def test_a_run_leaves_receipt_metrics_checkpoint_and_adapter(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        *("run.json", "metrics.jsonl", "checkpoints", "adapter"),
        *("report.html", "report.png", "log.txt"),
    }
    assert [path.name for path in (finished / "checkpoints").glob("checkpoint-*")] == ["checkpoint-3"]


def test_what_it_said_is_in_its_folder(finished: Path) -> None:
    lines = (finished / "log.txt").read_text(encoding="utf-8").splitlines()
    assert "  kit train " in lines[0]
    assert "current stack" in lines[1] or "reference stack" in lines[1]  # from before the folder was there
    assert [line for line in lines if line.startswith("step      3/3")]


def test_a_bug_before_the_run_began_leaves_its_traceback_in_the_runs_folder(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_check", lambda *_: {}["labels"])
    with pytest.raises(KeyError):
        _train(tiny_base, tmp_path / "out")
    assert "KeyError: 'labels'" in (tmp_path / "out" / "error.txt").read_text(encoding="utf-8")
    monkeypatch.undo()
    assert _train(tiny_base, tmp_path / "out", training__max_steps=1) == 0
    assert not (tmp_path / "out" / "error.txt").exists()


def test_a_bug_beside_a_run_that_is_not_to_be_replaced_leaves_nothing_in_it(
    finished: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_check", lambda *_: {}["labels"])
    with pytest.raises(KeyError):
        _train(tiny_base, finished)
    assert not (finished / "error.txt").exists()


def test_the_adapter_is_safetensors_with_card_and_tokenizer_and_no_pickle(finished: Path, tiny_base: Path) -> None:
    names = {path.name for path in (finished / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert (finished / "adapter/tokenizer.json").read_bytes() == (tiny_base / "tokenizer.json").read_bytes()


def test_the_receipt_says_what_was_trained_from_what_with_what(finished: Path) -> None:
    receipt = read_receipt(finished)
    assert receipt["state"] == "finished"
    assert receipt["steps_done"] == 3
    assert receipt["config"]["quantization"]["load_in_4bit"] is True  # type: ignore[index]
    assert receipt["origins"]["training.max_steps"] == "command line"  # type: ignore[index]
    assert receipt["data"][0]["rows"] == 4000  # type: ignore[index]
    assert receipt["packages"]["torch"]  # type: ignore[index]
    assert receipt["adapter_sha256"] != receipt["adapter_init_sha256"]
    assert receipt["peak_memory_bytes"] > 0  # type: ignore[operator]
    assert receipt["attention"] == "sdpa"
    assert len(receipt["locks"]) >= 2  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="the lock compared with is the one for Linux")
def test_the_locked_current_stack_trains(finished: Path) -> None:
    """A lock counts as good when a run with exactly its versions has trained."""
    receipt = read_receipt(finished)
    assert receipt["stack"] == "current"
    assert deviations(receipt, PROJECT_ROOT / "locks/current-linux-x86_64.txt") == {}
    assert receipt["steps_done"] == 3


def test_metrics_hold_one_line_a_step_and_the_last_evaluation(finished: Path) -> None:
    metrics = read_metrics(finished)
    assert [line["step"] for line in metrics] == [1, 2, 3, 3]
    assert metrics[-1]["eval_loss"] == read_receipt(finished)["eval_loss"]
    assert all(line["grad_norm"] > 0 and line["tokens"] > 0 for line in metrics[:3])


def test_the_adapter_keeps_float32_on_a_4_bit_base(finished: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(finished / "adapter/adapter_model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"torch.float32"}
    assert len(weights) == 4 * 7 * 2


def test_the_adapter_can_be_bfloat16_by_choice(tiny_base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert _train(tiny_base, tmp_path / "out", lora__adapter_dtype="bfloat16") == 0
    weights = load_file(tmp_path / "out/adapter/adapter_model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"torch.bfloat16"}


def test_the_same_seed_gives_the_same_adapter_bit_for_bit(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    assert _train(tiny_base, tmp_path / "again", training__max_steps=3) == 0
    assert read_receipt(tmp_path / "again")["adapter_sha256"] == read_receipt(finished)["adapter_sha256"]
    again = (tmp_path / "again/adapter/adapter_model.safetensors").read_bytes()
    assert again == (finished / "adapter/adapter_model.safetensors").read_bytes()


def test_another_seed_gives_another_adapter(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    assert _train(tiny_base, tmp_path / "other", training__max_steps=3, training__seed=7) == 0
    assert read_receipt(tmp_path / "other")["adapter_init_sha256"] != read_receipt(finished)["adapter_init_sha256"]


def test_micro_batches_add_up_to_the_batch(tiny_base: Path, tmp_path: Path) -> None:
    """The update depends on the rows in it, not on how they are cut up: answers of different lengths weigh alike."""
    common = {"quantization__load_in_4bit": False, "lora__lora_dropout": 0.0, "training__max_steps": 4}
    whole = {"training__per_device_train_batch_size": 8}
    cut = {"training__per_device_train_batch_size": 2, "training__gradient_accumulation_steps": 4}
    assert _train(tiny_base, tmp_path / "whole", **common, **whole) == 0
    assert _train(tiny_base, tmp_path / "cut", **common, **cut) == 0
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "cut"), abs=1e-5)


def test_the_validation_loss_does_not_depend_on_the_evaluation_batch(tiny_base: Path, tmp_path: Path) -> None:
    for size in (1, 7):
        changes = {"training__per_device_eval_batch_size": size, "training__max_steps": 1}
        assert _train(tiny_base, tmp_path / str(size), **changes) == 0
    evaluations = [read_receipt(tmp_path / str(size))["eval_loss"] for size in (1, 7)]
    assert evaluations[0] == pytest.approx(evaluations[1], abs=1e-5)


def test_gradient_checkpointing_changes_nothing_but_memory(tiny_base: Path, tmp_path: Path) -> None:
    for name, value in (("with", True), ("without", False)):
        assert _train(tiny_base, tmp_path / name, training__gradient_checkpointing=value) == 0
    assert losses(tmp_path / "with") == pytest.approx(losses(tmp_path / "without"), abs=1e-6)


def test_an_earlier_run_is_not_replaced_unasked(
    finished: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "run.json").read_bytes()
    assert _train(tiny_base, finished) == 1
    assert (finished / "run.json").read_bytes() == before
    assert "--overwrite" in capsys.readouterr().err


def test_an_earlier_run_is_replaced_when_asked(tiny_base: Path, tmp_path: Path) -> None:
    assert _train(tiny_base, tmp_path / "out", training__max_steps=1) == 0
    assert _train(tiny_base, tmp_path / "out", "--overwrite", training__max_steps=2) == 0
    assert read_receipt(tmp_path / "out")["steps_done"] == 2


@pytest.mark.parametrize("platform", ["h100", "m4"])
def test_a_run_for_another_platform_is_refused_with_the_reason(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], platform: str
) -> None:
    assert _train(tiny_base, tmp_path / "out", "--require", platform) == 1
    assert f"this run needs {platform}" in capsys.readouterr().err
    assert not (tmp_path / "out/run.json").exists()


def test_the_hub_is_not_asked_for_a_run_that_cannot_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_args, **options: pytest.fail(str(options)))
    assert call(train, [f"training.output_dir={tmp_path}/out", "--require", "m4"]) == 1
    told = capsys.readouterr().err
    assert "this run needs m4" in told
    assert "     ok  " not in told


def test_without_a_configuration_the_recommended_one_is_trained(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(train, [*overrides(tiny_base, tmp_path / "out"), "--require", "h100"]) == 1
    assert "training_config_demo.yaml on cpu" in capsys.readouterr().err


def test_unusable_rows_are_named_and_nothing_is_trained(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    good = {"prompt": "Write the word a backwards.", "completion": "a"}
    lossless = {"prompt": "x" * 200, "completion": "never reached"}
    data.write_text("\n".join(json.dumps(row) for row in (good, lossless, {"text": "no shape"})), encoding="utf-8")
    assert _train(tiny_base, tmp_path / "out", data__train_file=data) == 1
    told = capsys.readouterr().err
    assert f"{data}:2" in told
    assert "has no trainable tokens" in told
    assert f"{data}:3" in told
    assert not (tmp_path / "out/run.json").exists()


def test_a_missing_model_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(tmp_path / "nowhere", tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert "Traceback" not in told


def test_a_base_without_safetensors_is_one_sentence(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    assert _train(base, tmp_path / "out") == 1
    assert "safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out/run.json").exists()


def test_a_run_that_dies_says_so_in_its_receipt(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kit.train import trainer

    def out_of_memory(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trainer, "build_trainer", out_of_memory)
    assert _train(tiny_base, tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "out of memory" in told
    assert "gradient_accumulation_steps" in told
    assert read_receipt(tmp_path / "out")["state"] == "failed"


def test_a_signal_to_the_command_ends_in_a_saved_checkpoint(tiny_base: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = train_command(tiny_base, output, python=sys.executable, training__max_steps=3_000)
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
        _wait_for_a_step(output, lambda: run.poll() is not None)
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=120) == 143
    _check_interrupted(output)


_STEPS = 12


def _check_finished(output: Path) -> None:
    receipt = read_receipt(output)
    assert (receipt["state"], receipt["steps_done"]) == ("finished", _STEPS)
    assert len(losses(output)) == _STEPS
    assert [path.name for path in checkpoints.folders(output / "checkpoints")[-1][1:]] == [f"checkpoint-{_STEPS}"]


def test_a_window_that_is_closed_does_not_end_a_run_that_nohup_began(tiny_base: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = train_command(tiny_base, output, python=sys.executable, training__max_steps=_STEPS)
    # What nohup does; it would itself take the output elsewhere.
    with Terminal(["bash", "-c", 'cd "$0" && trap "" HUP && exec "$@"', str(PROJECT_ROOT), *command]) as terminal:
        terminal.wait_for(r"step +2/")
        terminal.close()
        assert terminal.exit_code() == 0
    _check_finished(output)


@pytest.mark.parametrize("redirected", [">&- 2>&-", ">/dev/full 2>/dev/full", "2> >(head -n 3) | true"])
def test_a_stream_that_nobody_has_does_not_end_a_run(redirected: str, tiny_base: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = train_command(tiny_base, output, python=sys.executable, training__max_steps=_STEPS)
    shell = ["bash", "-c", f'set -o pipefail; "$@" {redirected}', "bash", *command]
    assert subprocess.run(shell, cwd=PROJECT_ROOT, check=False, timeout=300).returncode == 0
    _check_finished(output)


def test_signals_that_a_batch_system_repeats_end_in_one_saved_checkpoint(tiny_base: Path, tmp_path: Path) -> None:
    """Slurm signals every process of a job, torchrun hands on what it gets, and a notice comes before the end.

    Until the process is gone, while it saves, writes its report and shuts down.
    """
    output = tmp_path / "out"
    command = train_command(tiny_base, output, python=sys.executable, training__max_steps=3_000)
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as run:
        _wait_for_a_step(output, lambda: run.poll() is not None)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
            run.send_signal(number)
            time.sleep(0.02)
        deadline = time.monotonic() + 120
        while run.poll() is None and time.monotonic() < deadline:
            run.send_signal(signal.SIGUSR1)
            run.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        assert run.returncode == 143
        assert run.stderr is not None
        said = run.stderr.read().decode()
    _check_interrupted(output)
    assert said.count("SIGTERM: saving, then stopping\n") == 1
    assert "SIGUSR1" not in said
    assert "report: " in said


def test_a_launcher_that_hands_on_what_the_batch_system_sends_to_all_does_not_cost_the_checkpoint(
    tiny_base: Path, tmp_path: Path
) -> None:
    """As torchrun does, in a session of its own for the run; seen under Slurm: the second one ended the run at once."""
    output, launcher = tmp_path / "out", tmp_path / "launcher.py"
    launcher.write_text(
        "import signal, subprocess, sys\n"
        "run = subprocess.Popen(sys.argv[1:], start_new_session=True)\n"
        "for number in (signal.SIGTERM, signal.SIGUSR1):\n"
        "    signal.signal(number, lambda number, _: run.send_signal(number))\n"
        "print(run.pid, flush=True)\n"
        "raise SystemExit(run.wait())\n",
        encoding="utf-8",
    )
    command = train_command(tiny_base, output, python=sys.executable, training__max_steps=3_000)
    with subprocess.Popen(
        [sys.executable, str(launcher), *command], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        run = int(process.stdout.readline())
        _wait_for_a_step(output, lambda: process.poll() is not None)
        for number in (signal.SIGUSR1, signal.SIGTERM):  # a notice of the time limit, then the end
            for each in (run, process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, number)
            time.sleep(0.05)
        assert process.wait(timeout=120) == 138
    _check_interrupted(output)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)])
def test_each_signal_ends_in_a_saved_checkpoint(
    finished: Path, tiny_base: Path, tmp_path: Path, number: int, code: int
) -> None:
    """In a child of this process, which has the libraries loaded; ``finished`` sees to that."""
    assert finished.exists()
    output = tmp_path / "out"
    end_threads()
    child = os.fork()
    if child == 0:
        ended = 70
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            ended = _train(tiny_base, output, training__max_steps=3_000)
        finally:
            os._exit(ended)
    _wait_for_a_step(output, lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    os.kill(child, number)
    assert exit_code_of(child) == code
    _check_interrupted(output)


def _wait_for_a_step(output: Path, has_ended: Callable[[], bool]) -> None:
    metrics = output / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        assert not has_ended(), "the run ended before its first step"
        time.sleep(0.2)


def _check_interrupted(output: Path) -> None:
    receipt = read_receipt(output)
    assert receipt["state"] == "interrupted"
    by = signal.Signals(receipt["signal"]).name
    assert f"stopped by {by} at step" in (output / "log.txt").read_text(encoding="utf-8")
    saved = checkpoints.read(output / "checkpoints" / f"checkpoint-{receipt['steps_done']}")
    assert {"adapter_model.safetensors", "optimizer.safetensors", "state.json", "metrics.jsonl"} <= set(saved.files)
    assert not (output / ".lock").exists()


def test_results_go_to_stdout_and_talk_to_stderr(tiny_base: Path, tmp_path: Path) -> None:
    done = run_training(tiny_base, tmp_path / "out", python=sys.executable)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert "adapter:" in done.stdout
    assert "Warning" not in done.stderr
    assert "step      2/2" in done.stderr


def test_no_secret_of_the_environment_reaches_the_run_directory(tiny_base: Path, tmp_path: Path) -> None:
    marker = "hf_marker_that_must_not_appear"
    os.environ["HF_TOKEN"] = marker
    try:
        assert _train(tiny_base, tmp_path / "out", training__max_steps=1) == 0
    finally:
        del os.environ["HF_TOKEN"]
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or marker.encode() not in path.read_bytes()


def test_wandb_offline_needs_no_account_and_no_network(tiny_base: Path, tmp_path: Path) -> None:
    done = run_training(
        tiny_base,
        tmp_path / "out",
        python=sys.executable,
        training__report_to="wandb",
        wandb__project="a-project",
        wandb__mode="offline",
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("wandb/offline-run-*")), "no offline run was written"
