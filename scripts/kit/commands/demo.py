"""The demo: pre-train a small Mistral once, fine-tune it with 4-bit QLoRA, and show answers before and after.

Run as:
    python scripts/kit demo                                      (or: make demo)
    python scripts/kit demo training.max_steps=100               any override of configs/training_config_demo.yaml

Runs offline on the CPU; the training is `kit train`, as for a real model.
Exit codes: 0 the model learnt the task, 1 it did not or a step failed, 2 wrong use, 130 stopped.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.command import call
from kit.cli.console import fail, paint, say
from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.quiet_libraries import quiet_imports
from kit.cli.screen import one_line
from kit.commands import train
from kit.config.resolve import resolve
from kit.data.chat_tokenizer import ChatTokenizer
from kit.files.digest import file_sha256
from kit.files.json_files import write_json
from kit.report import after_run
from kit.run_directory.names import ADAPTER, DEMO

if TYPE_CHECKING:
    import argparse

    from kit.config.settings import Settings

CONFIG = Path("configs/training_config_demo.yaml")
PRETRAINING_STEPS = 500
# What makes the demo a proof: before, the model cannot do the task; after, it can.
MOST_BEFORE, LEAST_AFTER = 0.10, 0.95
LONGEST_ANSWER = 12  # tokens, that is letters
SHOWN = 6
_KILLED = 128  # an exit code above it is a signal's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")


def run(options: argparse.Namespace) -> int:
    os.chdir(PROJECT_ROOT)
    # The demo's matrices are small: several threads spend their time waiting for each other, above all where other
    # programs run too. One thread also gives the same adapter whatever the number of cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings = resolve(CONFIG, options.overrides).settings
    try:
        _step(1, "create a base model: a small Mistral that can spell and has never seen a chat")
        make_base(Path(settings.model.model_name_or_path))
        _step(2, f"QLoRA fine-tuning: kit train {CONFIG}")
        code = call(train, [str(CONFIG), *options.overrides, "--overwrite"])
        if code > _KILLED:
            say(f"to resume: make train CONFIG={CONFIG} RESUME=auto; `make demo` retrains on the same base", "yellow")
        if code:
            return code
        _step(3, "ask the same questions before and after, on unseen words")
        return compare(settings)
    except FileExistsError as exc:
        return fail(str(exc), "move it away, or name a new folder: model.model_name_or_path=…")
    except KeyboardInterrupt:
        say("stopped; run `make demo` again: finished parts are kept", "yellow")
        return 130


def _step(number: int, what: str) -> None:
    say(f"\n[{number}/3] {what}", "bold")


def make_base(folder: Path) -> None:
    """Pre-train the base model where it is not there yet, or was made by other code.

    Raises:
        FileExistsError: The folder holds something else.
    """
    stamp = folder / "made_by.json"  # there from the first file on
    recipe = file_sha256(PROJECT_ROOT / "scripts/kit/demo/base.py") + file_sha256(
        PROJECT_ROOT / "scripts/kit/demo/task.py"
    )
    if stamp.exists() and recipe in stamp.read_text(encoding="utf-8"):
        say(f"{folder} exists")
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not stamp.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: holds something other than the demo's base model")
    say(f"pre-training {PRETRAINING_STEPS} steps, about a minute on two cores; kept in {folder}")
    write_json(stamp, {"recipe": None})
    loss = pretrain_base(folder)
    write_json(stamp, {"recipe": recipe, "loss": loss, "steps": PRETRAINING_STEPS})


def pretrain_base(folder: Path) -> float:
    """Pre-train the base model and return its last loss."""
    with quiet_imports():
        from kit.demo.base import pretrain

    return pretrain(folder, steps=PRETRAINING_STEPS)


def compare(settings: Settings) -> int:
    """Answer the validation questions with the 4-bit base, without and with the adapter; return the exit code."""
    with quiet_imports():
        from kit.modeling.adapter_in_use import load_adapter
        from kit.modeling.model import load_base_model
        from kit.use.answers import answer, exact_match, read_questions

    tokenizer = ChatTokenizer.load_for(settings)
    questions = read_questions(Path(settings.data.val_file or settings.data.train_file), tokenizer)
    model: Any = load_base_model(settings, "cpu")
    before = answer(model, tokenizer, questions, max_new_tokens=LONGEST_ANSWER)
    model = load_adapter(model, settings.run_directory / ADAPTER)
    after = answer(model, tokenizer, questions, max_new_tokens=LONGEST_ANSWER)

    width = max(len(question.prompt) for question in questions[:SHOWN])
    print(f"{'question':<{width}}  {'before':<{LONGEST_ANSWER}}  after")
    for question, old, new in list(zip(questions, before, after, strict=True))[:SHOWN]:
        colour = "green" if new == question.expected else "red"
        shown = paint(one_line(new), colour, stream=sys.stdout)
        print(f"{one_line(question.prompt):<{width}}  {one_line(old) or '(nothing)':<{LONGEST_ANSWER}}  {shown}")
    scores = exact_match(before, questions), exact_match(after, questions)
    print(f"exact match on {len(questions)} unseen words: {scores[0]:.0%} before, {scores[1]:.0%} after")
    write_json(
        settings.run_directory / DEMO,
        {
            "exact_match_before": scores[0],
            "exact_match_after": scores[1],
            "questions": len(questions),
            "samples": [
                {"prompt": question.prompt, "expected": question.expected, "base": old, "adapter": new}
                for question, old, new in zip(questions, before, after, strict=True)
            ],
        },
    )
    after_run(settings.run_directory)
    if scores[0] < MOST_BEFORE and scores[1] > LEAST_AFTER:
        print(paint("the demo worked.", "green", "bold", stream=sys.stdout) + " Next: make validate")
        return 0
    print(f"the demo did not work: expected under {MOST_BEFORE:.0%} before and over {LEAST_AFTER:.0%} after")
    return 1
