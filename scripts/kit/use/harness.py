"""Standard benchmarks through EleutherAI's lm-evaluation-harness, where it is installed beside the kit.

It is no part of the locks: it brings some forty packages of its own, and its tasks come from the hub.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.cli.quiet_libraries import quiet_imports
from kit.run_directory.history import RunError

if TYPE_CHECKING:
    from pathlib import Path

    from kit.use.loading import Loaded

VERSION = "0.4.13"  # the one this was tried with


@dataclass(frozen=True)
class HarnessTasks:
    """What to run.

    Attributes:
        folder: More tasks, as YAML files of one's own.
        limit: Questions of each task, from the first; None for all.
        fewshot: Examples before each question; None for the task's own number.
        chat: Put each question through the chat template. Published figures are mostly without it, and it leaves no
            blank before an answer that is only scored, where Mistral's template has one.
    """

    names: tuple[str, ...]
    folder: Path | None = None
    limit: int | None = None
    fewshot: int | None = None
    chat: bool = False


def require_harness(python: str) -> None:
    """Check that the harness is installed before anything is loaded.

    Raises:
        RunError: It is not.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise RunError(f"--tasks: lm-evaluation-harness is not installed; {python} -m pip install lm_eval=={VERSION}")


def run_tasks(loaded: Loaded, tasks: HarnessTasks, *, adapter: bool, batch_size: int) -> dict[str, dict[str, Any]]:
    """Run the tasks with or without the adapter.

    Returns:
        For each task its measures, as the harness names them: ``acc``, ``acc_stderr`` …

    Raises:
        RunError: There is no such task, or its data is unavailable.
    """
    with quiet_imports():
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        from kit.modeling.model import load_tokenizer

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of a model that is loaded already, as wanted here
    manager = TaskManager(include_path=str(tasks.folder) if tasks.folder else None)
    unknown = [name for name in tasks.names if name not in manager.all_tasks]
    if unknown:
        raise RunError(
            f"--tasks: the harness has no task {unknown[0]!r}; list them with: lm-eval ls tasks, or name a folder of "
            "your own YAML files: --task-folder"
        )
    tokenizer = load_tokenizer(loaded.choice.settings)
    with loaded.active(adapter=adapter) as model:
        # The layers carry the adapter; the harness knows the model under it.
        language_model = HFLM(
            pretrained=model.get_base_model(), tokenizer=tokenizer, batch_size=batch_size, backend="causal"
        )
        try:
            found = simple_evaluate(
                language_model,
                tasks=list(tasks.names),
                task_manager=manager,
                num_fewshot=tasks.fewshot,
                limit=tasks.limit,
                apply_chat_template=tasks.chat,
                bootstrap_iters=0,
                log_samples=False,
            )
        except (OSError, ConnectionError, ValueError) as exc:
            reason = str(exc).strip().splitlines()[0][:300] if str(exc).strip() else type(exc).__name__
            raise RunError(f"--tasks: {reason}; make its data available, from the hub or a local file") from exc
    return {name: _measures(values) for name, values in found["results"].items()}


def _measures(values: dict[str, Any]) -> dict[str, Any]:
    """Keep the numbers, under the harness's own names: ``acc,none`` becomes ``acc``, other filters keep theirs."""
    return {
        key.removesuffix(",none"): float(value)
        for key, value in values.items()
        if isinstance(value, (int, float)) and "," in key
    }
