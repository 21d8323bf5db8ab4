"""Train the benchmark's rows with Unsloth, as its own notebooks do, and write what one row of the table needs.

Run as, with its own environment's Python, on an NVIDIA GPU:
    python unsloth_peer.py JOB.json

Nothing of the kit is imported: ``bench.peers`` writes all that is needed into the job.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def columns_of(job: dict[str, Any]) -> dict[str, list[list[int]]]:
    """Return the job's rows as columns, in the order they are trained in."""
    rows = job["rows"]
    return {"input_ids": [row["input_ids"] for row in rows], "labels": [row["labels"] for row in rows]}


def result_of(job: dict[str, Any], ends: list[float], found: dict[str, Any]) -> dict[str, Any]:
    """Turn the moments at which steps ended into one row of the table; the first steps warm up and do not count."""
    steps = [end - begin for begin, end in itertools.pairwise(ends)][job["warm_up"] :]
    return {
        "variant": job["variant"],
        "workload": job["workload"],
        "milliseconds_per_step": 1000 * statistics.median(steps),
        "tokens_per_second": job["timed_tokens"] / sum(steps),
        **found,
    }


def main() -> None:
    """Train, measure, write the result where the job says."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    # Before torch and transformers: it changes them as they are imported.
    from unsloth import FastLanguageModel  # isort: skip
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    ends: list[float] = []

    class StepClock(TrainerCallback):  # type: ignore[misc]
        """Notes when each optimizer step has really ended on the device."""

        def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
            torch.cuda.synchronize()
            ends.append(time.perf_counter())

        on_step_end = on_train_begin

    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=job["base"], max_seq_length=job["length"], dtype=torch.bfloat16, load_in_4bit=True
    )
    lora = job["lora"]
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["target_modules"],
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=job["seed"],
        max_seq_length=job["length"],
    )
    dataset = Dataset.from_dict(columns_of(job))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=dataset,
        # No collator of ours: with its own, rows are laid end to end without padding.
        args=SFTConfig(
            output_dir="out",
            per_device_train_batch_size=job["rows_at_once"],
            gradient_accumulation_steps=job["accumulation"],
            max_steps=job["steps"],
            max_length=job["length"],
            dataset_kwargs={"skip_prepare_dataset": True},
            optim=job["optim"],
            learning_rate=job["learning_rate"],
            bf16=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=job["seed"],
        ),
        callbacks=[StepClock()],
    )
    trainer._get_train_sampler = lambda *_: SequentialSampler(dataset)  # noqa: SLF001 - the rows in everybody's order
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    found = {
        "attention": str(getattr(model.config, "_attn_implementation", "its own")),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        "last_loss": float(trainer.state.log_history[-1].get("train_loss", float("nan"))),
    }
    Path(job["result"]).write_text(json.dumps(result_of(job, ends, found)), encoding="utf-8")


if __name__ == "__main__":
    main()
