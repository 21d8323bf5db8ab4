"""Evaluate a run: its adapter against its base, on the validation set or on any other file.

Run as:
    python scripts/kit evaluate                                          the newest run, on its validation set
    python scripts/kit evaluate outputs/demo --questions 20              (make evaluate RUN=demo ARGS="--questions 20")
    python scripts/kit evaluate demo --tasks arc_easy,hellaswag          lm-evaluation-harness, if installed

Loss and perplexity are over the answers of every row, weighted by tokens as in training; exact match and ROUGE over
greedy answers to the last question of each row. Writes evaluation.json to the run directory.
Exit codes: 0 evaluated, 1 the data cannot be used or out of memory, 2 wrong use, 130 stopped.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from kit.cli.command import number_within
from kit.cli.console import paint, say
from kit.cli.findings import has_errors, render
from kit.cli.quiet_libraries import quiet_imports
from kit.cli.screen import one_line
from kit.data.dataset import EncodedFile, load_file
from kit.data.encoding import encode_prompt
from kit.files.json_files import object_or_none, write_json
from kit.report import after_run
from kit.run_directory.history import RunError
from kit.run_directory.names import evaluation_name
from kit.stacks.stack import installed_stack
from kit.use.endings import carry_out
from kit.use.evaluation import Evaluation, Side, compare_with_training, compute_differences, show
from kit.use.harness import HarnessTasks, require_harness, run_tasks
from kit.use.loading import LoadChoice, Loaded, add_run_arguments, choose, load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kit.use.answers import EvalPrompt

MOST_QUESTIONS = 200  # asked unless --questions says otherwise: minutes, not hours, with a 7B model
LONGEST_ANSWER = 512  # tokens; the default is the longest expected answer and a little more, up to this
_SLACK = 8


def run(options: argparse.Namespace) -> int:
    def work() -> int:
        if options.tasks:
            require_harness(sys.executable)
        choice = choose(options, installed_stack())
        path = _data_file(options, choice)
        out = options.out or _default_out(options, choice, path)
        if os.path.lexists(out) and "evaluated_at" not in (object_or_none(out) or {}):
            raise RunError(f"{out}: exists and is not an evaluation; name another file: --out FILE")
        return _evaluate(options, choice, path, out)

    fix = "use --batch-size 1, lower --max-new-tokens, or close other programs that use the memory"
    return carry_out(work, stopped="stopped; nothing was written", when_memory_runs_out=fix)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    count, positive = number_within(0), number_within(1)
    parser.add_argument("--data", type=Path, metavar="FILE", help="another JSONL file than the run's data.val_file")
    parser.add_argument(
        "--questions", type=count, metavar="N", help=f"ask at most N, 0 for none; default: up to {MOST_QUESTIONS}"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=positive,
        metavar="N",
        help=f"most tokens of an answer; default: the longest expected one, up to {LONGEST_ANSWER}",
    )
    parser.add_argument("--samples", type=count, default=5, metavar="N", help="how many answers to show (5)")
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="rows at once; default: the run's per_device_eval_batch_size"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="path of the JSON file; default: in the run directory")
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of the table")
    harness = parser.add_argument_group("lm-evaluation-harness")
    harness.add_argument("--tasks", metavar="A,B", help="tasks to run for base and adapter")
    harness.add_argument("--task-folder", type=Path, metavar="FOLDER", help="a folder of your own task YAML files")
    harness.add_argument("--task-limit", type=positive, metavar="N", help="the first N questions of each task")
    harness.add_argument("--fewshot", type=count, metavar="N", help="examples before each question")
    harness.add_argument("--chat-template", action="store_true", help="apply the chat template, off by default")


def _data_file(options: argparse.Namespace, choice: LoadChoice) -> Path:
    named = options.data or choice.settings.data.val_file
    if not named:
        raise RunError("the run has no validation set; name a file: --data FILE")
    path = Path(named).expanduser()
    if not path.is_file():
        raise RunError(f"{path}: no such file; name one: --data FILE")
    return path


def _evaluate(options: argparse.Namespace, choice: LoadChoice, path: Path, out: Path) -> int:
    say(f"{choice.run.name}: {choice.adapter} on {choice.base_name} in {choice.how}, {choice.platform}", "bold")
    for remark in choice.remarks:
        say(f"note: {remark}", "yellow")
    file = load_file(path, choice.tokenizer, choice.settings.training.max_seq_length)
    render([finding for finding in file.findings if finding.severity in {"warning", "error"}], sys.stderr)
    if has_errors(file.findings) or not file.rows:
        say("not evaluated: fix the rows above", "red", "bold")
        return 1
    asked, max_new_tokens = _questions(options, choice, file)
    loaded = load(choice)
    evaluation = _measure(options, loaded, file, asked, max_new_tokens)
    write_json(out, evaluation.as_mapping())
    if out == choice.run.folder / evaluation_name():
        after_run(choice.run.folder)  # its samples belong into the run's report
    if options.json:
        print(json.dumps(evaluation.as_mapping(), indent=2, ensure_ascii=False))
        return 0
    show(evaluation, sys.stdout, samples=options.samples)
    compare_with_training(evaluation)
    verdict, colour = evaluation.verdict
    print(
        f"{paint(verdict, colour, 'bold', stream=sys.stdout)}\nwritten: {one_line(out)}"
        f"\nnext: make chat RUN={one_line(choice.run.folder)}"
    )
    return 0


def _questions(options: argparse.Namespace, choice: LoadChoice, file: EncodedFile) -> tuple[list[EvalPrompt], int]:
    """Choose the questions and the longest answer; report what does not fit into the model."""
    with quiet_imports():
        from kit.use.answers import read_questions
        from kit.use.scores import sample

    wanted = MOST_QUESTIONS if options.questions is None else options.questions
    questions = read_questions(file.path, choice.tokenizer)
    if others := len(file.rows) - len(questions):
        say(f"{others:,} rows end without a trained answer and are not asked", "yellow")
    asked = sample(questions, wanted, choice.settings.training.seed)
    if not asked:
        return [], 1
    expected = max(len(choice.tokenizer.encode(choice.tokenizer.hide(question.expected))[0]) for question in asked)
    max_new_tokens = options.max_new_tokens or min(LONGEST_ANSWER, expected + _SLACK)
    room = choice.context_length - max_new_tokens
    fitting = [
        question for question in asked if len(encode_prompt(question.conversation.messages, choice.tokenizer)) <= room
    ]
    if len(fitting) < len(asked):
        say(
            f"{len(asked) - len(fitting):,} questions skipped: with {max_new_tokens:,} tokens for the answer they "
            f"exceed the model's context of {choice.context_length:,}",
            "yellow",
        )
    how = "all" if len(asked) == len(questions) else f"drawn with seed {choice.settings.training.seed} from"
    say(f"asking {len(fitting):,} questions ({how} {len(questions):,}), answers up to {max_new_tokens:,} tokens", "dim")
    return fitting, max_new_tokens


def _measure(
    options: argparse.Namespace, loaded: Loaded, file: EncodedFile, asked: Sequence[EvalPrompt], max_new_tokens: int
) -> Evaluation:
    from kit.use.answers import answer
    from kit.use.rounding import loss_rounding
    from kit.use.scores import row_losses, score_answers

    batch_size = options.batch_size or loaded.choice.settings.training.per_device_eval_batch_size
    tasks = options.tasks and HarnessTasks(
        tuple(name for name in options.tasks.split(",") if name),
        options.task_folder,
        options.task_limit,
        options.fewshot,
        chat=options.chat_template,
    )
    sides: dict[bool, Side] = {}
    total = 2 * (len(file.rows) + len(asked))
    with tqdm(total=total, unit="row", leave=False, disable=not sys.stderr.isatty()) as bar:
        for adapter in (False, True):
            name = "adapter" if adapter else "base"
            with loaded.active(adapter=adapter) as model:
                bar.set_description(f"{name}: loss")
                losses = row_losses(model, file.rows, batch_size=batch_size, done=bar.update)
                bar.set_description(f"{name}: answers")
                given = answer(
                    model,
                    loaded.tokenizer,
                    asked,
                    max_new_tokens=max_new_tokens,
                    batch_size=options.batch_size or 32,
                    done=bar.update,
                )
            scores = score_answers(given, [question.expected for question in asked]) if asked else None
            sides[adapter] = Side(losses, tuple(given), scores)
    if tasks:
        for adapter, side in sides.items():
            say(f"lm-evaluation-harness on the {'adapter' if adapter else 'base'}: {', '.join(tasks.names)} …", "dim")
            side.tasks.update(run_tasks(loaded, tasks, adapter=adapter, batch_size=batch_size))
    facts = _facts(loaded.choice, file, max_new_tokens, tasks)
    facts["elsewhere"] = compute_differences(loaded.choice)
    facts["loss_rounding"] = loss_rounding(loaded.model, sides[True].losses, loaded.choice.settings)
    return Evaluation(facts, tuple(asked), sides[False], sides[True])


def _facts(choice: LoadChoice, file: EncodedFile, max_new_tokens: int, tasks: HarnessTasks | None) -> dict[str, Any]:
    receipt = choice.run.receipt
    same_data = file.sha256 in [entry.get("sha256") for entry in receipt.get("data") or [] if isinstance(entry, dict)]
    return {
        "run": choice.run.name,
        "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "adapter_folder": str(choice.adapter),
        "base_model": choice.base_name,
        "base_revision": choice.settings.model.revision,
        "base_loaded_in": choice.how,
        "platform": choice.platform,
        "stack": choice.stack.name,
        "remarks": list(choice.remarks),
        "data": {"path": str(file.path), "sha256": file.sha256, "in_receipt": same_data},
        "max_seq_length": choice.settings.training.max_seq_length,
        "max_new_tokens": max_new_tokens,
        "run_eval_loss": receipt.get("eval_loss") if same_data and choice.is_the_runs_own else None,
        "harness": {**asdict(tasks), "folder": str(tasks.folder or "")} if tasks else None,
    }


def _default_out(options: argparse.Namespace, choice: LoadChoice, path: Path) -> Path:
    """Name the file: evaluation.json for the run's own adapter and data, another beside it for any other."""
    parts = []
    if options.data:
        parts.append(path.stem)
    if not choice.is_the_runs_own:
        parts.append(choice.adapter.name)
    return choice.run.folder / evaluation_name(*parts)
