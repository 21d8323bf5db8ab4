"""Turn early ends of work with a run's model into a sentence and an exit code."""

from __future__ import annotations

import signal
from collections.abc import Callable

from kit.cli.console import say
from kit.cli.failures import explain
from kit.cli.foreground import TerminatedError
from kit.cli.mistakes import WrongUseError
from kit.cli.traceback_file import keep_traceback


def carry_out(work: Callable[[], int], *, stopped: str, when_memory_runs_out: str) -> int:
    """Do the work; print ``stopped`` after a signal, and the given fix when memory runs out.

    Returns:
        The work's exit code; 128 and its number after a signal, 1 for a failure that has a name.

    Raises:
        WrongUseError: The run cannot be used.
    """
    try:
        return work()
    except WrongUseError:
        raise
    except (KeyboardInterrupt, TerminatedError) as exc:
        say(stopped, "yellow")
        return 128 + (exc.number if isinstance(exc, TerminatedError) else signal.SIGINT)
    except Exception as exc:
        finding = explain(exc)
        if finding.id == "run.bug" or isinstance(exc, BrokenPipeError):  # whoever read the output has seen enough
            raise
        say(f"error: {finding.message}", "red")
        fix = when_memory_runs_out if finding.id == "run.out_of_memory" else finding.fix
        say(f"  fix: {fix}; {keep_traceback(exc)}")
        return 1
