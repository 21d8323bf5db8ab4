"""Probe access to the base model and Weights & Biases. Never reads a secret into a fact."""

from __future__ import annotations

import contextlib
import netrc
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kit.cli.logins import expanded, hub_home, hub_token, netrc_files
from kit.environment.facts import NO_FOLDER, ModelAccess, WandbAccess
from kit.model.base import CONFIG, INDEX, TOKENIZER_FILES, WHOLE, shard_names
from kit.model.files import ModelFileError, is_local
from kit.model.hub import ask_hub

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRUE = {"1", "ON", "YES", "TRUE"}  # huggingface_hub's own list


def hub_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the Hugging Face hub's cache folder, by huggingface_hub's own rules."""
    chosen = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return expanded(chosen) if chosen else hub_home(environ) / "hub"


def has_hub_token(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a Hub token is set or stored, without reading a stored one."""
    if (environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or "").strip():
        return True
    try:
        return hub_token(environ).stat().st_size > 0
    except OSError:
        return False


def is_offline(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the Hub must not be asked (``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``)."""
    value = environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE


def missing_files(folder: Path) -> tuple[str, ...]:
    """Return what a model folder lacks of configuration, tokenizer and safetensors shards."""
    try:
        return _missing_files(folder)
    except PermissionError:
        return ("everything: this user cannot read the folder",)


def _missing_files(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return (NO_FOLDER,)
    missing = [name for name in (CONFIG, TOKENIZER_FILES[0]) if not (folder / name).is_file()]
    index = folder / INDEX
    if index.is_file():
        try:
            shards = shard_names(index)
        except ModelFileError:
            return (*missing, f"a readable {INDEX}")
        missing.extend(shard for shard in shards if not (folder / shard).is_file())
    elif not (folder / WHOLE).is_file():
        missing.append(WHOLE)
    return tuple(missing)


def cached_snapshot(name: str, revision: str | None, cache: Path) -> Path | None:
    """Return the cached snapshot of a hub model at a revision (``main`` by default), or None."""
    repository = cache / f"models--{name.replace('/', '--')}"
    commit = revision or "main"
    with contextlib.suppress(OSError):
        commit = (repository / "refs" / commit).read_text(encoding="utf-8").strip()
    snapshot = repository / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def probe_model(name: str, revision: str | None = None, *, ask: bool = True) -> ModelAccess:
    """Probe whether a model can be loaded: from a local folder, the cache, or (with ``ask``) the Hub."""
    if is_local(name):
        return ModelAccess(name, "folder", missing_files=missing_files(Path(name).expanduser()))
    cache = hub_cache()
    snapshot = cached_snapshot(name, revision, cache)
    missing = () if snapshot is None else missing_files(snapshot)
    offline = is_offline()
    is_complete = snapshot is not None and not missing
    return ModelAccess(
        name,
        "hub",
        missing_files=missing,
        is_cached=snapshot is not None,
        cache_directory=without_home(cache),
        has_token=has_hub_token(),
        is_offline=offline,
        hub_answer="not_asked" if is_complete or offline or not ask else ask_hub(name, revision),
    )


def without_home(path: Path) -> str:
    """Write a path with ``~`` for the home folder: a record may be shown to others."""
    with contextlib.suppress(ValueError, RuntimeError):  # outside the home folder, or there is none
        return str(Path("~") / path.relative_to(Path.home()))
    return str(path)


def probe_wandb(environ: Mapping[str, str] = os.environ) -> WandbAccess:
    """Return the source of the wandb login, and the mode that the environment sets."""
    mode = environ.get("WANDB_MODE", "").lower()
    if environ.get("WANDB_DISABLED", "").upper() in _TRUE:
        mode = "disabled"
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return WandbAccess("environment", mode)
    host = urlsplit(environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    for path in netrc_files(environ):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(str(path)).authenticators(host):
                return WandbAccess("netrc", mode)
    return WandbAccess("none", mode)
