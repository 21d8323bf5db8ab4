"""A run's provenance for its receipt: code, stack, lock, image, data. Imports no torch.

Environment variables are never written down, as they carry secrets; the few that the kit's own image sets are named in
``describe_image``.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from kit.audit.histogram import histogram
from kit.audit.training_file import lengths_of
from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.redaction import redact_argv
from kit.files.digest import file_sha256
from kit.run_directory.process import this_process
from kit.stacks.locks import STAMP, digest, packages
from kit.stacks.registry import GENERATIONS, generation_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.config.settings import Settings
    from kit.data.dataset import EncodedFile
    from kit.machine.facts import Machine
    from kit.stacks.stack import Stack


def describe_data(files: Sequence[EncodedFile], max_seq_length: int) -> list[dict[str, Any]]:
    """Name each data file with its hash, its counts and how long its rows are, in tokens before the cut."""
    return [_describe_file(file, lengths_of(file), max_seq_length) for file in files]


def _describe_file(file: EncodedFile, lengths: dict[int, int], max_seq_length: int) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "sha256": file.sha256,
        "rows": len(file.rows),
        "tokens": file.rows.tokens,
        "trainable_tokens": file.rows.trainable_tokens,
        "length_histogram": asdict(histogram(lengths)),
        "truncated_rows": sum(rows for length, rows in lengths.items() if length > max_seq_length),
    }


def describe_code() -> dict[str, Any]:
    """Name the code: the git revision, and whether anything differs from it; None where git does not say.

    An image holds no git: it was built with its revision in ``KIT_REVISION``.
    """
    revision = _git("rev-parse", "HEAD")
    if revision is None and os.environ.get("KIT_REVISION"):
        return {"git_revision": os.environ["KIT_REVISION"], "git_dirty": None}
    changes = None if revision is None else _git("status", "--porcelain", "--untracked-files=no")
    code: dict[str, Any] = {"git_revision": revision, "git_dirty": None if changes is None else bool(changes)}
    if changes:
        difference = _git("diff", "--no-ext-diff", "--binary", "HEAD")
        code["git_diff_sha256"] = difference and hashlib.sha256(difference.encode(errors="replace")).hexdigest()
    return code


def scripts_tree(revision: str) -> str | None:
    """Name the content of ``scripts/`` at a revision; None where git does not know it."""
    return _git("rev-parse", "--verify", "--quiet", f"{revision}:scripts")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(PROJECT_ROOT), *arguments], capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def describe_stack(stack: Stack) -> dict[str, Any]:
    """Name the stack, every installed distribution, and the lock this environment was installed from."""
    installed: dict[str, str] = {}
    for dist in metadata.distributions():
        # setuptools, once imported, puts copies of other packages at the end of the path: they are its own.
        if "_vendor" not in Path(str(dist.locate_file(""))).parts:
            # In the order of sys.path: the first is what an import finds.
            installed.setdefault(dist.metadata["Name"] or "?", dist.version or "?")
    return {
        "stack": stack.name,
        "python": sys.version.split()[0],
        "packages": dict(sorted(installed.items())),
        "locks": {path.name: file_sha256(path) for path in sorted((PROJECT_ROOT / "locks").glob("*.txt"))},
        "lock": describe_lock(stack.name, installed),
    }


def describe_lock(stack: str, installed: Mapping[str, str]) -> dict[str, Any] | None:
    """Name the lock this environment was installed from, and every package that deviates from it.

    That is the lock whose hash the set-up left in the environment, else the stack's own for this system.

    Returns:
        ``name``, ``sha256``, ``installed_from_sha256`` (None where the set-up left no mark: conda, or by hand) and
        ``deviations``: ``name``, ``locked`` and ``installed`` version, one of them None where it is in one alone. None
        where the lock cannot be read.
    """
    own = generation_of(stack, installed).lock_for("m4" if platform.system() == "Darwin" else "")
    mark = _installed_from()
    known = [lock for item in GENERATIONS.values() for lock in item.locks.values()]
    texts = {lock: text for lock in (own, *known) if (text := _text(PROJECT_ROOT / lock.target))}
    lock = next((lock for lock, text in texts.items() if digest(text) == mark), own)
    if lock not in texts:
        return None
    locked = {canonicalize_name(name): version for name, version in packages(texts[lock]).items()}
    found = {canonicalize_name(name): version for name, version in installed.items()}
    return {
        "name": lock.target,
        "sha256": digest(texts[lock]),
        "installed_from_sha256": mark,
        "deviations": [
            {"name": name, "locked": locked.get(name), "installed": found.get(name)}
            for name in sorted({*locked, *found})
            if locked.get(name) != found.get(name)
        ],
    }


def _installed_from() -> str | None:
    """Return the hash of the lock this environment was made from, where its maker left it."""
    if in_image():
        return _known(os.environ.get("KIT_LOCK_SHA256"))
    return _text(Path(sys.prefix) / STAMP)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def in_image() -> bool:
    """Tell whether this is a container of the kit's own image."""
    return "KIT_STACK" in os.environ and "KIT_REVISION" in os.environ


def describe_image() -> dict[str, Any] | None:
    """Name the image this container runs; None outside one.

    ``id`` is the engine's own, which only the host knows: make hands it in (``KIT_IMAGE_ID``). ``source_sha256`` was
    written into the image when it was built, over the files it is made of.
    """
    if not in_image():
        return None
    names = {"id": "KIT_IMAGE_ID", "revision": "KIT_REVISION", "source_sha256": "KIT_SOURCE_SHA256"}
    return {key: _known(os.environ.get(variable)) for key, variable in names.items()}


def _known(value: str | None) -> str | None:
    return None if value in {None, "", "unknown"} else value


def describe_before(
    argv: Sequence[str], settings: Settings, origins: dict[str, str], machine: Machine, stack: Stack
) -> dict[str, Any]:
    """Collect what is known before the first step."""
    return {
        "run_name": settings.training.run_name,
        "argv": redact_argv(argv),
        "process": this_process(),
        "config": settings.as_mapping(),
        "origins": origins,
        "seed": settings.training.seed,
        "machine": asdict(machine),
        **describe_here(stack),
    }


def describe_here(stack: Stack) -> dict[str, Any]:
    """Collect what a run here would be made with: stack, lock, image, code."""
    return {**describe_stack(stack), "image": describe_image(), **describe_code()}
