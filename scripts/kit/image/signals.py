"""Run a container in the foreground where no terminal is: signals go to the container, its exit code comes back.

docker-compose 1.29 answers a signal by stopping the container unheard and leaving with 1; a person would see neither
the checkpoint that was saved nor the exit code. Standard library only, and for Python 3.9 on.
"""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

from kit.cli.foreground import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# By what the container gets. SIGHUP is not for containers: what runs in one need not know it, and all know SIGTERM.
PASSED_ON = {
    signal.SIGINT: "SIGINT",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGTERM",
    signal.SIGUSR1: "SIGUSR1",  # a scheduler's notice that the machine is wanted back
}


def run_passing_signals(command: Sequence[str], environment: Mapping[str, str], client: str, container: str) -> int:
    """Run compose's command for a container; return its exit code, 128 and the signal's number where one ended it."""

    # A session of its own: Ctrl-C reaches a whole process group, and compose is not to hear of it.
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=dict(environment), start_new_session=True)

    def pass_on(process: subprocess.Popen[bytes], number: int) -> None:
        order = [client, "kill", f"--signal={PASSED_ON[signal.Signals(number)]}", container]
        sent = subprocess.run(order, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if sent.returncode:
            process.send_signal(number)  # there is no container yet, or no longer

    return wait_for(start, PASSED_ON, pass_on)
