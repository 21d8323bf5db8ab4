"""The job that is tortured: a small model and a few rows, with all that attempts share done once, before them."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.quiet_libraries import quiet_imports
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.dataset import load_file
from kit.machine.one_device import use_judged_device
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.model.usability import require_whole
from kit.model.weights import describe_base
from kit.stacks.stack import installed_stack
from kit.train.job import TrainingJob
from kit.train.resume import identity_of
from torture.forked import end_threads

CONFIG = PROJECT_ROOT / "configs/training_config_demo.yaml"
_TRAIN_ROWS, _VAL_ROWS = 48, 6  # 12 steps an epoch: a longer run shuffles again, and a kill may fall on either side


def overrides_of(folder: Path, *, steps: int, save_steps: int, four_bit: bool) -> dict[str, Any]:
    """Make a base model and data in ``folder``; return the overrides of the demo's configuration that train it."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    with quiet_imports():
        import torch

        from kit.demo.base import SHAPE, new_model, save_base
        from kit.demo.tokenizer import byte_tokenizer

        torch.set_num_threads(1)  # threads do not survive a fork
        tokenizer, shape = byte_tokenizer(), {**SHAPE, "num_hidden_layers": 1}
        save_base(new_model(tokenizer.get_vocab_size(), seed=0, shape=shape), tokenizer, folder / "base", shape)
    return {
        "model.model_name_or_path": str(folder / "base"),
        "quantization.load_in_4bit": four_bit,
        "data.train_file": str(_first_rows("train.jsonl", _TRAIN_ROWS, folder)),
        "data.val_file": str(_first_rows("val.jsonl", _VAL_ROWS, folder)),
        "training.max_steps": steps,
        "training.per_device_train_batch_size": 2,
        "training.gradient_accumulation_steps": 2,
        "training.save_steps": save_steps,
        "training.eval_steps": save_steps + 1,
        "training.save_total_limit": 2,
        "training.logging_steps": 3,
    }


def prepare(overrides: dict[str, Any]) -> TrainingJob:
    """Do once what every attempt shares: import the libraries, read the data, lay out the run, load the model once.

    What a library keeps from its first model is then there in every forked child, on shared pages.
    """
    with quiet_imports():
        import kit.train.callback
        import kit.train.saving
        import kit.train.state
        import kit.train.trainer  # noqa: F401 - imported once, for every child
        from kit.modeling.model import attach_adapter, load_base_model

    resolved = resolve(CONFIG, overrides)
    settings, stack, machine = resolved.settings, installed_stack(), probe()
    use_judged_device()
    tokenizer = ChatTokenizer.load_for(settings)
    names = [name for name in (settings.data.train_file, settings.data.val_file) if name]
    files = [load_file(Path(name), tokenizer, settings.training.max_seq_length) for name in names]
    plan = order_batches(settings, files[0].rows, files[1].rows)
    base = describe_base(require_whole(settings.model.model_name_or_path, None, stack.traits.reader, download=False))
    platform = judge(machine).platform
    identity = identity_of(settings, plan, stack, platform, base)
    attach_adapter(load_base_model(settings, platform), settings)
    end_threads()
    # Nothing of this is garbage: without this each child looks through all of it, and copies the pages it lies on.
    gc.collect()
    gc.freeze()
    return TrainingJob(resolved, machine, platform, stack, files, plan, base, identity)


def _first_rows(name: str, count: int, folder: Path) -> Path:
    rows = (PROJECT_ROOT / "data/sample" / name).read_text(encoding="utf-8").splitlines()[:count]
    path = folder / name
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
