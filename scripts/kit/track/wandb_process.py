"""The process that sends a run's metrics to wandb, started by ``wandb_tracker`` beside the training.

It reads ``metrics.jsonl`` as it grows, so the training never waits for what wandb waits for. It ends when its standard
input asks for it or closes, which it does when the training dies; and then within ``WandbRun.end_s``. Signals are for
the training alone: batch systems send theirs to every process of a job.

A run that is resumed goes on with its run in wandb. The number of a line in ``metrics.jsonl`` is its step there, and
what an earlier session sent is not sent again.

Where wandb cannot be reached it begins again as a fresh process that records offline: what a wandb that gave up has
left in memory is not known.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kit.cli.foreground import ignore_signals
from kit.cli.interpreter import python_path
from kit.files.json_files import object_or_none, write_json
from kit.run_directory.names import HANDED_ON

ORDER = "KIT_WANDB_ORDER"
_LOOK_S = 0.5
# What wandb would send besides: the git remote and commit, the command's path, host and account, the machine, packages.
# run.json has what of it matters. Counters of the process, the GPU, network and disk stay: they are curves.
_LEFT_OUT: dict[str, Any] = {
    "disable_code": True,
    "disable_git": True,
    "host": "not said",
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
}


@dataclass(frozen=True)
class WandbRun:
    """What to send where.

    Attributes:
        mode: ``online`` or ``offline``.
        entity: wandb's team or user; None for the one logged in.
        process: The training's PID, whose CPU and memory wandb shows.
        log: The file for wandb's output.
        log_began: Its size when this process began.
        begin_s: Seconds wandb may take to begin online.
        send_s: Seconds it may take at the end to send what is left.
        end_s: Seconds after the training's end in which this process is gone.
        problem: Why it is offline although the run asked for online.
    """

    metrics: str
    folder: str
    mode: str
    project: str | None
    entity: str | None
    name: str
    id: str
    config: dict[str, Any]
    process: int
    listener: int
    log: str
    log_began: int
    begin_s: float
    send_s: float
    end_s: float
    problem: str = ""

    def environment(self) -> dict[str, str]:
        """Return this environment with the order in it, for the process that carries it out."""
        kept = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        own = {"PYTHONPATH": python_path(), ORDER: json.dumps(asdict(self))}
        return {"WANDB_ERROR_REPORTING": "false", **kept, **own}


def main() -> int:
    """Carry the order out."""
    order = WandbRun(**json.loads(os.environ[ORDER]))
    ignore_signals()
    try:
        run = _begin(order)
        _tell(
            order,
            mode=order.mode,
            url=run.url if order.mode == "online" else None,
            folder=Path(run.dir).parent.name,
            problem=order.problem,
        )
        ended = _follow(_Lines(run, order))
        signal.alarm(max(1, round(order.end_s)))  # whatever hangs from here on
        run.finish(exit_code=0 if ended == "finished" else 1)
        _tell(order, is_sent=order.mode == "online" and not _asks_for_wandb_sync(order))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the training does not care
        _tell(order, problem=_short(exc), is_sent=False)
        return 1
    return 0


def _begin(order: WandbRun) -> Any:
    """Begin wandb's run; one that is to be online and cannot be begins again, offline."""
    if order.mode != "online":
        return _init(order)
    timer = threading.Timer(order.begin_s, _begin_offline, [order, f"no answer in {order.begin_s:g} s"])
    timer.daemon = True
    timer.start()
    try:
        return _init(order)
    except Exception as exc:  # noqa: BLE001 - no network shows itself in many ways
        _begin_offline(order, _short(exc))
    finally:
        timer.cancel()


def _init(order: WandbRun) -> Any:
    import wandb

    settings = wandb.Settings(
        console="off",
        finish_timeout=order.send_s,
        finish_timeout_raises=True,
        init_timeout=order.begin_s,
        program="scripts/train.py",
        x_stats_pid=order.process,
        **_LEFT_OUT,
    )
    run = wandb.init(
        project=order.project,
        entity=order.entity,
        name=order.name,
        id=order.id,
        resume="allow",
        config=order.config,
        dir=order.folder,
        mode=order.mode,  # type: ignore[arg-type]
        settings=settings,
    )
    # As transformers' own callback names them, so that older runs and these share their charts.
    run.define_metric("train/global_step")
    run.define_metric("*", step_metric="train/global_step", step_sync=True)
    return run


def _begin_offline(order: WandbRun, problem: str) -> None:
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(children, timeout=1)
    again = replace(order, mode="offline", problem=problem)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], again.environment())  # noqa: S606 - this program


class _Lines:
    """The lines of ``metrics.jsonl`` on their way, each once."""

    def __init__(self, run: Any, order: WandbRun) -> None:
        """Begin after what earlier sessions sent: by wandb's count online, else by the count kept here."""
        self._run, self._metrics, self._id = run, Path(order.metrics), order.id
        self._kept = Path(order.log).with_name(HANDED_ON)
        self._begin = self._number = 0
        kept = object_or_none(self._kept) or {}
        here = kept.get("lines") if kept.get("id") == order.id else 0
        known = getattr(run, "starting_step", 0) if order.mode == "online" else here
        self._first = known if isinstance(known, int) else 0

    def forward_output(self) -> None:
        """Log the whole lines that are new."""
        try:
            with self._metrics.open("rb") as file:
                file.seek(self._begin)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            if self._number >= self._first:
                # wandb counts by itself, but for what it does not know of: lines that are elsewhere still.
                step = {"step": self._number} if self._first else {}
                self._run.log(as_logged(json.loads(line)), **step)
            self._number += 1
        self._begin += len(whole)
        if whole and self._number > self._first:
            write_json(self._kept, {"id": self._id, "lines": self._number})


def _follow(lines: _Lines) -> str:
    """Send each line as it is written, until the training ends; return its state."""
    word = ""
    while not word:
        if select.select([0], [], [], _LOOK_S)[0]:
            word = os.read(0, 100).decode().strip() or "died"
        lines.forward_output()
    return word


def as_logged(line: dict[str, Any]) -> dict[str, Any]:
    """Name a line of ``metrics.jsonl`` as wandb's charts know it; what is not a number is left out."""
    names = {"step": "train/global_step", "eval_loss": "eval/loss"}
    return {names.get(key, f"train/{key}"): value for key, value in line.items() if value is not None}


def _asks_for_wandb_sync(order: WandbRun) -> bool:
    """Look through what wandb printed: an upload that a server refuses for good is no exception anywhere."""
    try:
        return b"wandb sync" in Path(order.log).read_bytes()[order.log_began :]
    except OSError:
        return False


def _tell(order: WandbRun, **news: Any) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(order.listener, json.dumps(news).encode() + b"\n")


def _short(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return (lines[0] if lines else type(exc).__name__)[:200]


if __name__ == "__main__":
    raise SystemExit(main())
