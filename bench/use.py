"""What a trained model is used for, timed: a loss over validation rows, and answers. Imports torch."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from bench.steps import build_kit, settings_and_plan
from bench.variants import KIT, VARIANTS, rows_of
from kit.data.batch_order import order_batches

if TYPE_CHECKING:
    from pathlib import Path

    from bench.variants import Scale

_EVALUATED = 8  # rows
_TIMES = 3
_PROMPT_SHARE = 8  # of a full row's length
_NEW_TOKENS = {"7b": 128, "small": 8}


def evaluate(scale: Scale, device: str, folder: Path, base: Any) -> dict[str, Any]:
    """Time the trainer's evaluation of a few full rows.

    Returns:
        ``seconds`` of each pass, ``tokens`` of one, ``tokens_per_second`` of the median one.
    """
    variant = next(item for item in VARIANTS if item.name == KIT)
    settings, plan = settings_and_plan(variant, "full", scale, folder, device)
    rows = rows_of("full", scale)
    some = type(rows).of([rows[index] for index in range(_EVALUATED)])
    trainer = build_kit(settings, order_batches(settings, rows, some), device, [], base)
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        trainer.evaluate()
        times.append(time.perf_counter() - began)
    del plan
    tokens = sum(int(length) for length in some.lengths)
    return {
        "rows_at_once": settings.training.per_device_eval_batch_size,
        "seconds": times,
        "tokens": tokens,
        "tokens_per_second": tokens / statistics.median(times),
    }


def generate(scale: Scale, device: str, base: Any) -> dict[str, Any]:
    """Time greedy answers of a fixed length, one prompt at a time and eight together.

    Returns:
        By prompts at once: ``seconds`` of each call, ``new_tokens`` of one, ``tokens_per_second`` of the median one.
    """
    base.eval()
    length, new = scale.length // _PROMPT_SHARE, _NEW_TOKENS[scale.name]
    found: dict[str, Any] = {"prompt_tokens": length}
    for prompts in (1, 8):
        ids = torch.randint(3, scale.shape.vocab_size, (prompts, length), device=device)
        times = []
        for _ in range(_TIMES):
            began = time.perf_counter()
            with torch.no_grad():
                base.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=new,
                    min_new_tokens=new,
                    do_sample=False,
                    use_cache=True,
                    pad_token_id=0,
                )
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        found[f"at_once_{prompts}"] = {
            "seconds": times,
            "new_tokens": prompts * new,
            "tokens_per_second": prompts * new / statistics.median(times[1:]),
        }
    return found
