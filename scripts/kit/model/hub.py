"""The Hugging Face hub, which may hang or be unreachable."""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HUB_SECONDS = 10.0
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def ask_hub(name: str, revision: str | None) -> str:
    """Ask for a model's config.json: ``ok``, ``gated``, ``not_found``, ``unreachable``, ``not_asked`` (no library)."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError
    except ImportError:
        return "not_asked"
    # In a thread: a name server that never answers ignores the request's time-out. Its retries would be logged between
    # our lines.
    answer = ["unreachable"]
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=_HUB_SECONDS)
            answer[0] = "ok"
        except GatedRepoError:
            answer[0] = "gated"
        except (RepositoryNotFoundError, EntryNotFoundError):
            answer[0] = "not_found"
        except Exception:  # noqa: BLE001 - a missing network raises many different errors
            answer[0] = "unreachable"
        finally:
            log.setLevel(level)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS + 2)
    return answer[0]


@functools.lru_cache(maxsize=8)
def hub_answers(name: str) -> bool:
    """Tell whether the hub answers; asked once per process, because a time-out takes 12 s."""
    return ask_hub(name, None) in {"ok", "gated", "not_found"}


@contextmanager
def hub_left_alone() -> Iterator[None]:
    """Keep every library offline: what a run needs is on this machine once it begins.

    Libraries read the variables when they are imported, so their own copies are set as well.
    """
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    places = [
        (sys.modules.get("huggingface_hub.constants"), "HF_HUB_OFFLINE"),
        (sys.modules.get("transformers.utils.hub"), "_is_offline_mode"),
    ]
    found = [(module, name, getattr(module, name)) for module, name in places if hasattr(module, name)]
    for module, name, _ in found:
        setattr(module, name, True)
    try:
        yield
    finally:
        for module, name, value in found:
            setattr(module, name, value)
        for variable, was in before.items():
            if was is None:
                os.environ.pop(variable, None)  # a library interrupted by a signal may have removed it
            else:
                os.environ[variable] = was
