"""Measure TRL: what its SFTTrainer does with the rows of a file before the first step.

Run as:
    python trl_peer.py ROWS.jsonl MODEL MAX_SEQ_LENGTH PROCESSES
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Print what was done in how many seconds; imports and building a model are not counted."""
    sys.path.append(str(Path(__file__).resolve().parents[3]))  # behind the tool's own modules
    from datasets import load_dataset
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM
    from trl import SFTConfig, SFTTrainer

    from bench.data_preparation.work_done import cpu_seconds

    rows, model, length, processes = sys.argv[1:]
    spent = [0.0, 0.0]

    class Timed(SFTTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
            started, worked = time.perf_counter(), cpu_seconds()
            prepared = super()._prepare_dataset(*args, **kwargs)
            spent[0] += time.perf_counter() - started
            spent[1] += cpu_seconds() - worked
            return prepared

    tiny = MistralForCausalLM(
        MistralConfig(
            vocab_size=32_000, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1,
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        started, worked = time.perf_counter(), cpu_seconds()
        dataset = load_dataset("json", data_files=rows, split="train")
        tokenizer = AutoTokenizer.from_pretrained(model)
        spent[0] += time.perf_counter() - started
        spent[1] += cpu_seconds() - worked
        workers = int(processes) if int(processes) > 1 else None
        arguments = SFTConfig(
            output_dir=folder, max_length=int(length), assistant_only_loss=True, dataset_num_proc=workers,
            report_to="none", use_cpu=True, bf16=False,
        )  # fmt: skip
        trainer = Timed(tiny, args=arguments, train_dataset=dataset, processing_class=tokenizer)
        prepared = trainer.train_dataset
    tokens = trained = 0
    for batch in prepared.iter(1000):
        masks = batch.get("assistant_masks") or batch.get("labels")
        tokens += sum(map(len, batch["input_ids"]))
        trained += sum(sum(value not in (0, -100) for value in mask[1:]) for mask in masks)
    print(
        json.dumps(
            {
                "seconds": spent[0],
                "cpu_seconds": spent[1],
                "rows": len(prepared),
                "tokens": tokens,
                "trained": trained,
            }
        )
    )


if __name__ == "__main__":
    main()
