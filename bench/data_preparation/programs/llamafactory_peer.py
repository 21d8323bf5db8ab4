"""Measure LLaMA-Factory: what it does with the rows of a file before training.

Run as, with its own environment's Python:
    python llamafactory_peer.py ROWS.jsonl MODEL MAX_SEQ_LENGTH PROCESSES
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Print what was done in how many seconds, imports not counted."""
    sys.path.append(str(Path(__file__).resolve().parents[3]))  # behind the tool's own modules
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.extras.constants import IGNORE_INDEX
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    from bench.data_preparation.work_done import cpu_seconds

    rows, model, length, processes = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        info = {
            "rows": {
                "file_name": str(Path(rows).resolve()),
                "formatting": "sharegpt",
                "columns": {"messages": "messages"},
                "tags": {
                    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"
                },
            }
        }  # fmt: skip
        (Path(folder) / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
        model_args, data_args, training_args, _, _ = get_train_args(
            {
                "stage": "sft", "do_train": True, "finetuning_type": "lora", "model_name_or_path": model,
                "dataset": "rows", "dataset_dir": folder, "template": "mistral", "cutoff_len": int(length),
                "preprocessing_num_workers": int(processes), "output_dir": f"{folder}/out", "report_to": "none",
                "use_cpu": True,
            }
        )  # fmt: skip
        started, worked = time.perf_counter(), cpu_seconds()
        parts = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(parts["tokenizer"], data_args)
        prepared = get_dataset(template, model_args, data_args, training_args, stage="sft", **parts)["train_dataset"]
        seconds, worked = time.perf_counter() - started, cpu_seconds() - worked
        tokens = trained = 0
        for batch in prepared.iter(1000):
            tokens += sum(map(len, batch["input_ids"]))
            trained += sum(sum(label != IGNORE_INDEX for label in labels[1:]) for labels in batch["labels"])
    print(
        json.dumps(
            {"seconds": seconds, "cpu_seconds": worked, "rows": len(prepared), "tokens": tokens, "trained": trained}
        )
    )


if __name__ == "__main__":
    main()
