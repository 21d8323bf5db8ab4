"""The model card that goes with an adapter: what it is, what it was made of, how to use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kit.cli.screen import code

if TYPE_CHECKING:
    from kit.config.settings import Settings

_CARD = """\
---
library_name: peft
base_model: {quoted}
tags: [qlora, lora]
---

# {name}

A LoRA adapter for `{base}`{revision}, trained {bits} on {rows:,} rows of `{train_file}` ({tokens:,} tokens seen).

| | |
|---|---|
| validation loss | {eval_loss} |
| last training loss | {train_loss} |
| steps x rows per step | {steps:,} x {batch} |
| LoRA | r={r}, alpha={alpha}, dropout={dropout}, on {modules} |
| learning rate | {rate:g}, {schedule} |
| stack | {stack} |

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({arguments})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained({arguments})
```

The whole configuration, the data's hashes and the versions are in `run.json` beside this folder.
"""


def render_card(settings: Settings, receipt: dict[str, Any]) -> str:
    """Write the card from a run's configuration and its receipt."""
    model = settings.model
    revision = f" at revision `{code(model.revision)}`" if model.revision else ""
    # A JSON string is one in YAML and in Python too.
    quoted = json.dumps(model.model_name_or_path, ensure_ascii=False)
    arguments = f"{quoted}, revision={json.dumps(model.revision, ensure_ascii=False)}" if model.revision else quoted
    eval_loss, train_loss = receipt.get("eval_loss"), receipt.get("train_loss")
    packages = receipt["packages"]
    return _CARD.format(
        base=code(model.model_name_or_path),
        quoted=quoted,
        arguments=arguments,
        revision=revision,
        name=settings.training.run_name,
        bits=f"in 4 bits ({settings.quantization.bnb_4bit_quant_type})"
        if settings.quantization.load_in_4bit
        else "unquantised",
        rows=receipt["data"][0]["rows"],
        train_file=code(settings.data.train_file),
        tokens=receipt["tokens"],
        eval_loss="not measured" if eval_loss is None else f"{eval_loss:.4f}",
        train_loss="not measured" if train_loss is None else f"{train_loss:.4f}",
        steps=receipt["steps_done"],
        batch=settings.effective_batch_size,
        r=settings.lora.r,
        alpha=settings.lora.lora_alpha,
        dropout=settings.lora.lora_dropout,
        modules=", ".join(settings.lora.target_modules),
        rate=settings.training.learning_rate,
        schedule=settings.training.lr_scheduler_type,
        stack=", ".join(
            f"{name} {packages[name]}" for name in ("torch", "transformers", "peft", "trl") if name in packages
        ),
    )
