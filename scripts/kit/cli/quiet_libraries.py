"""Keep the libraries' own remarks off the terminal, so that what is left is for the person.

Silenced are announcements about the libraries' futures and features the kit does not use; validation says in its own
words what matters of them. Errors still come through.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBRARIES = r"(accelerate|bitsandbytes|peft|torch|transformers|trl)(\.|$)"


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Import torch and what stands on it in here.

    Standard output stays free for results: bitsandbytes 0.41 prints to it where there is no GPU.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # What a person trains is nobody else's business, and a thread that waits for the network is one too many.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # rows are encoded already; forked workers would warn
    for category in (UserWarning, FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=_LIBRARIES)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        yield
    if "transformers" in sys.modules:
        logs = sys.modules["transformers"].utils.logging
        logs.disable_progress_bar()
        logs.set_verbosity_error()
