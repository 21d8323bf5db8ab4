"""Where the libraries keep what they log in with, by their own rules. Standard library only, and for Python 3.9 on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def expanded(path: str) -> Path:
    """Return a path with its variables and ``~`` written out; where there is no home folder, ``~`` stays as it is."""
    return Path(os.path.expanduser(os.path.expandvars(path)))  # noqa: PTH111 - pathlib's raises there


def hub_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the Hugging Face hub's files, as huggingface_hub finds it."""
    return expanded(environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface")


def hub_token(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file of the hub's token; ``stored_tokens`` lies beside it."""
    chosen = environ.get("HF_TOKEN_PATH")
    return expanded(chosen) if chosen else hub_home(environ) / "token"


def netrc_files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files that wandb and git may find a password in."""
    return [expanded(path) for path in ([environ["NETRC"]] if environ.get("NETRC") else ["~/.netrc", "~/_netrc"])]
