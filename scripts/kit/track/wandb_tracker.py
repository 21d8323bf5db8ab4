"""Weights & Biases: sent by a process of its own, which a run neither waits for nor depends on.

The run writes ``metrics.jsonl`` and nothing else; ``wandb_process`` reads it. At the run's end it has ``END_S`` to send
the rest; then it prints the command that sends what is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from kit.cli.console import say
from kit.cli.findings import render, warning
from kit.environment.access_probe import probe_wandb
from kit.run_directory.names import CURVES, METRICS
from kit.track.wandb_process import WandbRun

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.run_directory.receipt import Receipt
    from kit.supervise.stop import StopRequest

BEGIN_S = 20.0
SEND_S = 20.0
# Beginning in vain and then offline fits into it.
END_S = 45.0
# A run that is stopped has little time: docker kills ten seconds after SIGTERM.
STOPPED_S = 8.0
LOG = "sender.log"


def new_id() -> str:
    """Make wandb's id of a run, shared by its sessions."""
    return secrets.token_hex(4)


class WandbTracker:
    """One run's curves on their way to wandb; does nothing where the run reports to nobody.

    Attributes:
        facts: For ``run.json``: mode, url, folder, what went wrong, and the command that sends what was not sent.
        process: The one that sends, while there is one.
    """

    def __init__(self, settings: Settings) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._folder = settings.run_directory / CURVES
        self.process: subprocess.Popen[bytes] | None = None
        self._events = -1
        self._buffer = b""
        self._id = ""
        self._earlier: list[str] = []  # folders that earlier sessions recorded this run in
        self._is_sent: bool | None = None  # unknown until the process reports
        self.facts: dict[str, Any] = {}

    def start(self, id_: str | None = None) -> None:
        """Start the sending process, or warn and go on without; ``id_`` continues that wandb run."""
        mode = _mode(self._settings)
        if self._settings.training.report_to != "wandb" or mode == "disabled":
            return
        self.facts = {"mode": mode, "url": None, "folder": None, "problem": ""}
        self._id = id_ or new_id()
        self._earlier = list(map(str, self._folder.glob(f"*run-*-{self._id}")))
        try:
            self._start(mode)
        except OSError as exc:
            self._handle({"problem": f"the upload process did not start: {exc}"})

    def _start(self, mode: str) -> None:
        self._folder.mkdir(exist_ok=True)
        log = self._folder / LOG
        self._events, writer = os.pipe()
        os.set_blocking(self._events, False)
        wandb = self._settings.wandb
        order = WandbRun(
            metrics=str((self._settings.run_directory / METRICS).absolute()),
            folder=str(self._settings.run_directory.absolute()),
            mode=mode,
            project=wandb.project,
            entity=wandb.entity,
            name=self._settings.training.run_name,
            id=self._id,
            config=self._settings.as_mapping(),
            process=os.getpid(),
            listener=writer,
            log=str(log.absolute()),
            log_began=log.stat().st_size if log.exists() else 0,
            begin_s=BEGIN_S,
            send_s=SEND_S,
            end_s=END_S,
        )
        try:
            with log.open("ab") as talk:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "kit.track.wandb_process"],
                    stdin=subprocess.PIPE,
                    stdout=talk,
                    stderr=talk,
                    env=order.environment(),
                    pass_fds=[writer],
                    start_new_session=True,  # Ctrl-C is for the run
                )
        finally:
            os.close(writer)

    def listen(self) -> None:
        """Print what the process has reported since; never waits."""
        if self.process is None:
            return
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._events, 65536):
                self._buffer += part
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._handle(json.loads(line))

    def _handle(self, event: dict[str, Any]) -> None:
        self._is_sent = event.pop("is_sent", self._is_sent)
        if event.get("folder"):
            event["folder"] = str(self._folder / event["folder"])
        self.facts.update(event)
        if event.get("problem"):
            where = "the run continues; metrics.jsonl has the curves"
            if self.facts["folder"]:
                where = f"the run continues; curves are recorded in {self.facts['folder']}"
            render([warning("run.wandb", f"wandb: {event['problem']}; {where}")], sys.stderr)
        elif event.get("url"):
            say(f"wandb: {event['url']}")

    def end(self, receipt: Receipt, stop: StopRequest) -> None:
        """Give the process time to send what is left, or until a signal; complete the receipt."""
        if not self.facts:
            return
        state = str(receipt.facts["state"])
        if self.process is not None:
            self._wait(state, stop)
        folder = self.facts["folder"]
        # With what earlier sessions recorded, which is not recorded again; what of it was sent wandb passes over. Not
        # what an attempt to begin online left, before this session was recorded offline.
        recorded = sorted({folder, *self._earlier}) if folder else []
        self.facts["sync"] = None if self._is_sent or folder is None else f"wandb sync {' '.join(recorded)}"
        if self.facts["sync"]:
            say(f"wandb: not uploaded yet; with a network: {self.facts['sync']}", "yellow")
        receipt.facts["wandb"] = self.facts
        with contextlib.suppress(OSError):  # said already where the disk is at fault
            receipt.write()

    def _wait(self, state: str, stop: StopRequest) -> None:
        process, before = self.process, stop.signal
        at_most_s = END_S if state == "finished" else STOPPED_S
        assert process is not None and process.stdin is not None  # noqa: S101, PT018 - for mypy: it is a pipe
        with contextlib.suppress(OSError):  # it has ended already
            process.stdin.write(state.encode() + b"\n")
            process.stdin.close()
        deadline = time.monotonic() + at_most_s
        while process.poll() is None and stop.signal == before and (left := deadline - time.monotonic()) > 0:
            select.select([self._events], [], [], min(left, 0.1))
            self.listen()
        late = process.poll() is None
        if late:
            process.kill()
        process.wait()
        self.listen()
        os.close(self._events)
        self.process = None
        if late:
            self._handle({"problem": f"the upload had not finished {at_most_s:g} s after the run ended; stopped"})
        elif self._is_sent is None:
            self._handle({"problem": f"the upload process ended with exit code {process.returncode}"})


def _mode(settings: Settings) -> str:
    """Return wandb's mode: the configuration enables it, and the environment can turn it down."""
    asked = probe_wandb().mode
    turned_down = {"dryrun": "offline"}.get(asked, asked) if asked in {"offline", "disabled", "dryrun"} else ""
    return turned_down or settings.wandb.mode
