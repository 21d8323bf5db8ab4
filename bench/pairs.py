"""What a person waits for, against what it is measured by: whole commands, taken in turns in one run."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.quiet_libraries import quiet_imports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.alternating import Competitors

PYTHON = sys.executable
BIN = Path(sys.executable).parent
_LIMIT = 900  # seconds for one command
_BUILT_A_ROUND = 4


@dataclass(frozen=True)
class Pair:
    """Two commands and how they should compare.

    Attributes:
        name: What is compared.
        ours: The kit's command; None where only the other one is timed.
        other: What it is compared with; None where there is nothing fair to compare with.
        goal: The least that ``other / ours`` should be.
    """

    name: str
    ours: tuple[str, ...]
    other: tuple[str, ...] | None
    goal: float | None


@dataclass(frozen=True)
class Timed:
    """One pair, timed: medians in seconds, and how often the other takes as long.

    Attributes:
        pair: What was timed.
        ours_seconds: The median of the kit's times.
        other_seconds: The median of the other's.
        each: Ratios measured one after the other, each side by side; empty where whole commands took turns.
    """

    pair: Pair
    ours_seconds: float
    other_seconds: float | None
    each: tuple[float, ...] = ()

    @property
    def ratio(self) -> float | None:
        """``other / ours``, the mean where it was measured more than once: above 1, the kit is faster."""
        if self.each:
            return statistics.mean(self.each)
        return None if self.other_seconds is None else self.other_seconds / self.ours_seconds

    @property
    def uncertainty(self) -> float | None:
        """Two standard errors of the ratio; None where it was measured once."""
        return 2 * statistics.stdev(self.each) / math.sqrt(len(self.each)) if len(self.each) > 1 else None

    def as_mapping(self) -> dict[str, Any]:
        """Return what the ledger keeps: raw ratios, the medians, the goal."""
        return {
            "ours_seconds": self.ours_seconds,
            "other_seconds": self.other_seconds,
            "each": list(self.each),
            "ratio": self.ratio,
            "uncertainty": self.uncertainty,
            "goal": self.pair.goal,
        }

    @property
    def is_missed(self) -> bool:
        """Whether the ratio is below the goal, however sure it is."""
        return self.pair.goal is not None and self.ratio is not None and self.ratio < self.pair.goal


def pairs(job: Path) -> list[Pair]:
    """Return the pairs; ``job`` is a folder made by ``prepare``."""
    script = str(PROJECT_ROOT / "scripts" / "kit")
    config = str(PROJECT_ROOT / "configs/training_config_demo.yaml")
    tiny = json.loads((job / "overrides.json").read_text(encoding="utf-8"))
    many = [item for item in tiny if not item.startswith("data.train_file=")]
    import_torch = (PYTHON, "-c", "import torch")
    return [
        Pair("detect, against importing torch", (PYTHON, script, "detect"), import_torch, 10.0),
        Pair("detect, against accelerate env", (PYTHON, script, "detect"), (f"{BIN}/accelerate", "env"), 1.0),
        Pair(
            "validate config and 100,000 rows",
            (PYTHON, script, "validate", config, *many, f"data.train_file={job}/100k.jsonl", "--no-probe"),
            None,
            None,
        ),
        Pair(
            "from the command to the end of the first step, against trl sft",
            (PYTHON, script, "train", config, *tiny, "training.max_steps=1", "--overwrite"),
            (f"{BIN}/trl", "sft", "--config", str(job / "trl.yaml")),
            1.0,
        ),
    ]


def prepare(job: Path) -> None:
    """Write the tiny job both sides train, and the 100,000 rows. Imports torch."""
    import torch

    from bench.random_base import write_random_base
    from bench.variants import SMALL

    base = write_random_base(SMALL, job / "base", dtype=torch.float32, device="cpu")
    rows = [{"prompt": f"Write the word {number} backwards.", "completion": str(number)[::-1]} for number in range(64)]
    _write_rows(job / "train.jsonl", rows)
    _write_rows(
        job / "100k.jsonl",
        [{"prompt": f"Write the word {n} backwards.", "completion": str(n)[::-1]} for n in range(100_000)],
    )
    overrides = [
        f"model.model_name_or_path={base}",
        f"data.train_file={job}/train.jsonl",
        "data.val_file=null",
        f"training.output_dir={job}/run",
        "training.per_device_train_batch_size=4",
    ]
    (job / "overrides.json").write_text(json.dumps(overrides), encoding="utf-8")
    # The same job in trl's own words: model, rows, batch, one step, LoRA on the same layers of a 4-bit base.
    options = {
        "model_name_or_path": str(base),
        "dataset_name": str(job / "trl-data"),
        "output_dir": str(job / "trl-run"),
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "use_peft": True,
        "lora_r": 16,
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "use_bnb_nested_quant": True,
        "dtype": "float32",
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
    }
    (job / "trl-data").mkdir(exist_ok=True)
    _write_rows(job / "trl-data" / "train.jsonl", rows)
    (job / "trl.yaml").write_text("\n".join(f"{key}: {json.dumps(value)}" for key, value in options.items()) + "\n")


def _write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_pair(pair: Pair, rounds: int) -> Timed:
    """Time both sides in turns, after one run of each that does not count.

    Raises:
        RuntimeError: A command failed; the message ends with its last line.
    """
    ours, other = [], []
    for number in range(rounds + 1):
        ours.append(_seconds(pair.ours))
        if pair.other:
            other.append(_seconds(pair.other))
        if number == 0:
            ours.clear()
            other.clear()
    return Timed(pair, statistics.median(ours), statistics.median(other) if other else None)


@dataclass(frozen=True)
class StepsBesideTrl:
    """A training step of the kit beside one of trl's ``SFTTrainer`` on the same rows.

    Attributes:
        timed: With the adapter in trl's type, and in the kit's.
        operators: How many of torch's operators a step of the kit calls, and one of trl, in trl's type.
    """

    timed: tuple[Timed, Timed]
    operators: tuple[float, float]


def steps_beside_trl(job: Path, rounds: int) -> StepsBesideTrl:
    """Time a step of the kit's trainer against one of trl's ``SFTTrainer`` on the same rows, in turns. Imports torch.

    Same model, rows, batch, checkpointing and optimizer; what differs is what the kit does beside: its loss weighting,
    its metrics, its watching. trl rounds the adapter of a 4-bit base to bfloat16, and the goal is held where the kit is
    told to do so too; its own float32 is other arithmetic, and is timed apart. Both are built anew ``_BUILT_A_ROUND``
    times a round, since two trainers built alike were seen to differ by a per cent or more for as long as they lived;
    and each is first as often as second.
    """
    with quiet_imports():
        import torch
        import transformers  # noqa: F401 - its remarks are silenced once it is there

        from bench.alternating import Competitors
        from bench.random_base import write_random_base
    from bench.variants import AS_TRL, BASELINE, STEADY, VARIANTS, Variant

    base = write_random_base(STEADY.shape, job / "steady", dtype=torch.float32, device="cpu")
    plain = next(variant for variant in VARIANTS if variant.name == BASELINE)
    as_trl, own = (
        Competitors(Variant("kit", {**AS_TRL, "lora.adapter_dtype": dtype}), plain, STEADY, base)
        for dtype in ("bfloat16", "float32")
    )
    name = "one step of training, against trl's SFTTrainer"
    built = _BUILT_A_ROUND * rounds
    with _in_silence(job) as folder:
        operators = as_trl.operator_calls(folder)
    goals = (
        Pair(f"{name}, adapter in bfloat16", (), (), 0.98),
        Pair(f"{name} in bfloat16, ours in float32", (), (), None),
    )
    return StepsBesideTrl((_step(as_trl, goals[0], job, built), _step(own, goals[1], job, built)), operators)


def _step(both: Competitors, pair: Pair, job: Path, built: int) -> Timed:
    ours: list[float] = []
    other: list[float] = []
    each: list[float] = []
    for number in range(built):
        with _in_silence(job) as folder:
            mine, theirs = both.steps_in_turns(folder, kit_first=number % 2 == 0)
        ours += mine
        other += theirs
        each.append(statistics.median(their / my for my, their in zip(mine, theirs, strict=True)))
    return Timed(pair, statistics.median(ours), statistics.median(other), tuple(each))


@contextlib.contextmanager
def _in_silence(job: Path) -> Iterator[Path]:
    """Give a folder for a while in which nothing is printed: both trainers tell of their progress."""
    with (
        tempfile.TemporaryDirectory(dir=job) as folder,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield Path(folder)


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_LIMIT, check=False, env=environment, cwd=PROJECT_ROOT
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{' '.join(command[:3])} … ended with exit code {done.returncode}: {last}")
    return time.perf_counter() - began
