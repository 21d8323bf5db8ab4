"""Measure `make train` to the end of its first step: all checks, the plan, the rows on their way to the trainer.

Run as:
    python first_step.py ROWS.jsonl MODEL MAX_SEQ_LENGTH PROCESSES

The base is a random one of two narrow layers, so that the rows are what takes memory. As many workers as `make train`
takes: PROCESSES is not used.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]


def main() -> None:
    """Print what was done in how many seconds, imports counted."""
    sys.path.insert(0, str(PROJECT))
    import torch

    from bench.data_preparation.rows import VOCABULARY
    from bench.data_preparation.work_done import cpu_seconds
    from bench.random_base import write_random_base
    from kit.model.shape import ModelShape

    rows, model, length, _ = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=Path(rows).parent) as folder:
        shape = ModelShape(VOCABULARY, 16, 32, 2, 2, 1, 8, 512)
        base = write_random_base(shape, Path(folder, "base"), dtype=torch.float32, device="cpu")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(Path(model, name), base / name)
        run = Path(folder, "run")
        changes = {
            "model.model_name_or_path": base, "quantization.load_in_4bit": "false", "data.train_file": rows,
            "data.val_file": "null", "training.max_seq_length": length, "training.max_steps": -1,
            "training.num_train_epochs": 3, "training.logging_steps": 1, "training.output_dir": run,
            "training.run_name": "first-step", "training.stall_timeout": 0,
            "training.per_device_train_batch_size": 1, "training.gradient_accumulation_steps": 8,
        }  # fmt: skip
        config = PROJECT / "configs" / "training_config_demo.yaml"
        command = [sys.executable, str(PROJECT / "scripts" / "kit"), "train", str(config)]
        command += [f"{key}={value}" for key, value in changes.items()]
        started, worked = time.perf_counter(), cpu_seconds()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as train:
            said = []
            for line in train.stderr or ():
                said.append(line)
                if line.startswith("step ") and "loss" in line:
                    break
            seconds, worked = time.perf_counter() - started, cpu_seconds() - worked
            train.terminate()
            train.communicate()
        receipt = run / "run.json"
        if not receipt.exists():
            raise SystemExit("".join(said))
        (file,) = json.loads(receipt.read_text(encoding="utf-8"))["data"]
    done = {"rows": file["rows"], "tokens": file["tokens"], "trained": file["trainable_tokens"]}
    print(json.dumps({"seconds": seconds, "cpu_seconds": worked, **done}))


if __name__ == "__main__":
    main()
