"""The kit's own commands, started as a person starts them, and what they came to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers import PEERS, version_in, write_job
from bench.variants import KIT, VARIANTS, overrides
from kit.cli.interpreter import PROJECT_ROOT
from tools.setup.uv import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.variants import Scale

_STEPS = {"7b": (20, 10), "small": (6, 3)}  # of the first run, and where it is stopped
_ROWS = {"7b": (320, 700), "small": (48, 24)}  # how many, and characters of each answer: a token each
_LAST_LINES = 5


def _run(command: Sequence[str], cwd: Path = PROJECT_ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
    return f"exit code {done.returncode}: {' | '.join(lines[-_LAST_LINES:])}"[:600]


def parity() -> dict[str, Any]:
    """Run ``kit parity`` and return its verdict and figures."""
    done = _run([sys.executable, "scripts/kit", "parity", "--json"])
    try:
        body = json.loads(done.stdout)
    except ValueError:
        return {"failed": _reason(done)}
    return {"exit_code": done.returncode, **body}


def first_run(scale: Scale, device: str, base: Path) -> dict[str, Any]:
    """Train with the H100's configuration, evaluating; again, stopped by SIGTERM half-way and resumed; compare.

    Returns:
        Seconds of each command, losses and evaluations of both runs, and how far their adapters are apart.
    """
    folder = PROJECT_ROOT / "outputs" / "prove" / "first-run"
    shutil.rmtree(folder, ignore_errors=True)  # of one that was stopped
    folder.mkdir(parents=True)
    try:
        return _first_run(scale, device, base, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _first_run(scale: Scale, device: str, base: Path, folder: Path) -> dict[str, Any]:
    steps, half = _STEPS[scale.name]
    rows, characters = _ROWS[scale.name]
    for name, count in (("train", rows), ("val", 16)):
        _write_rows(folder / f"{name}.jsonl", count, characters, name)
    variant = next(item for item in VARIANTS if item.name == KIT)
    changes = {
        **overrides(variant, "full", scale, on_cuda=device == "cuda"),
        "model.model_name_or_path": base,
        "data.train_file": folder / "train.jsonl",
        "data.val_file": folder / "val.jsonl",
        "training.max_seq_length": min(scale.length, 1024),
        "training.max_steps": steps,
        "training.eval_steps": half,
        "training.save_steps": half,
        "training.logging_steps": 1,
    }
    told = [f"{key}={value}" for key, value in changes.items()]
    command = [sys.executable, "scripts/kit", "train", "configs/training_config_h100.yaml", *told]
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    done = _run([*command, f"training.output_dir={folder / 'whole'}"])
    seconds["whole"] = time.perf_counter() - began
    if done.returncode:
        return {"failed": _reason(done)}
    stopped = [*command, f"training.output_dir={folder / 'stopped'}"]
    began = time.perf_counter()
    code = _stop_half_way(stopped, folder / "stopped", half + 1)
    seconds["until stopped"] = time.perf_counter() - began
    if code != 128 + signal.SIGTERM:
        return {"failed": f"stopped by SIGTERM it ended with exit code {code}"}
    began = time.perf_counter()
    done = _run([*stopped, "--resume", "auto"])
    seconds["resumed"] = time.perf_counter() - began
    if done.returncode:
        return {"failed": _reason(done)}
    runs = {name: _run_of(folder / name) for name in ("whole", "stopped")}
    return {
        "seconds": seconds,
        "losses": {name: _losses(run) for name, run in runs.items()},
        "rehearsal": {name: _receipt(run).get("rehearsal") for name, run in runs.items()},
        "adapters": _apart(*(run / "adapter" / "adapter_model.safetensors" for run in runs.values())),
    }


def _write_rows(path: Path, count: int, characters: int, words: str) -> None:
    lines = []
    for number in range(count):
        answer = f"{words} {number} " * (characters // 4)
        row = {"prompt": f"Row {number} of {words}?", "completion": answer[: characters - number % (characters // 2)]}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def _stop_half_way(command: Sequence[str], folder: Path, step: int) -> int:
    """Start a run, send it SIGTERM once its metrics name a step, and return its exit code."""
    process = subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
    )
    while process.poll() is None:
        time.sleep(0.05)
        text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("**/metrics.jsonl"))
        if f'"step": {step}' in text or f'"step":{step}' in text:
            process.send_signal(signal.SIGTERM)
            break
    return process.wait()


def _run_of(folder: Path) -> Path:
    return next(folder.glob("**/run.json")).parent


def _receipt(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text(encoding="utf-8")))


def _losses(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key in {"step", "loss", "eval_loss"}}
        for line in lines
    ]


def _apart(first: Path, second: Path) -> dict[str, Any]:
    """Return how far two adapters' weights are apart."""
    from safetensors.numpy import load_file

    one, other = load_file(first), load_file(second)
    differences = [abs(one[name].astype("float64") - other[name].astype("float64")) for name in one]
    return {
        "equal": first.read_bytes() == second.read_bytes(),
        "tensors": len(one),
        "largest_difference": max(float(difference.max()) for difference in differences),
        "largest_weight": max(float(abs(weight).max()) for weight in one.values()),
        "mean_difference": sum(float(item.sum()) for item in differences) / sum(item.size for item in differences),
    }


def peer(which: str, scale: Scale, base: Path) -> dict[str, Any]:
    """Measure somebody else's trainer with its own environment's Python."""
    workload, name = which.split("/", maxsplit=1)
    chosen = next(item for item in PEERS if item.name == name)
    try:
        python = chosen.environment()
    except SetupError as exc:
        return {"failed": f"not installed: {exc.message}"}
    with tempfile.TemporaryDirectory() as folder:
        job, result = write_job(chosen, workload, scale, base, Path(folder))
        # It may write where it stands.
        done = _run([python, str(chosen.program), str(job)], cwd=Path(folder))
        if done.returncode:
            return {"failed": _reason(done)}
        return {**json.loads(result.read_text(encoding="utf-8")), "version": version_in(python, chosen.key)}
