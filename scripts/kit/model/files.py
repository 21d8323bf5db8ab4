"""A model's files: in a folder, in the Hugging Face cache or on the hub. Imports neither torch nor transformers."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from kit.cli.failures import ExplainedError
from kit.files import regular_files
from kit.files.json_files import read_object
from kit.model.hub import hub_answers

# The kit's own folders, which are unlikely names of a Hugging Face owner.
_LOCAL_ROOTS = frozenset({"models", "outputs", "data", "checkpoints"})

# Made by `make demo` on first use, so a fresh clone does not have it.
DEMO_BASE = "models/demo-base"


class ModelFileError(ExplainedError):
    """A model's file is missing or unusable; the message is one sentence with its fix."""

    finding_id = "run.model"


def is_local(name_or_path: str) -> bool:
    """Tell a folder from a hub name, which has at most one slash and no leading dot, slash or tilde."""
    return (
        name_or_path.startswith((".", "/", "~"))
        or name_or_path.count("/") > 1
        or name_or_path.split("/", maxsplit=1)[0] in _LOCAL_ROOTS
        or _is_folder(Path(name_or_path))
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long for the file system, or an unreadable parent
        return False


def find(name_or_path: str, filename: str, revision: str | None = None, *, download: bool = False) -> Path:
    """Return the path of one of a model's files, in a folder, the cache or (``download=True``) the hub.

    Raises:
        ModelFileError: The file is missing, or the hub did not provide it.
    """
    try:
        folder = Path(name_or_path).expanduser()
    except RuntimeError as exc:
        raise ModelFileError(f"{name_or_path}: there is no such user; write the whole path") from exc
    if _is_folder(folder):
        if os.path.isfile(folder / filename):  # noqa: PTH113 - False, not an exception, in an unreadable folder
            return folder / filename
        raise ModelFileError(f"{name_or_path}: the folder has no {filename}; copy the model's complete folder there")
    if is_local(name_or_path):
        raise ModelFileError(f"{name_or_path}: there is no such folder; give a model's folder or its name on the hub")

    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # one sentence below reports what its retries log

    try:
        known = (try_to_load_from_cache(name_or_path, name, revision=revision) for name in (filename, "config.json"))
        if download and any(isinstance(path, str) for path in known):
            # A hub that hangs would cost minutes per file, although the files are here.
            download = hub_answers(name_or_path)
        return Path(hf_hub_download(name_or_path, filename, revision=revision, local_files_only=not download))
    except Exception as exc:
        # huggingface_hub 0 and 2 raise different errors here; the fixes are the same.
        kind = type(exc).__name__
        if "Gated" in kind or "401" in str(exc) or "403" in str(exc):
            advice = f"accept the model's terms on its page, then `hf auth login` or set HF_TOKEN ({kind})"
        elif download:
            what = "the name, model.revision and the network" if revision else "the name and the network"
            advice = f"check {what}, or copy the model into a folder and use its path ({kind})"
        else:
            advice = f"download it first: `{download_command(name_or_path, revision)}`"
        raise ModelFileError(f"{name_or_path}: {filename} is not on this machine; {advice}") from exc


def leads_out(path: Path, folder: Path) -> Path | None:
    """Return the target of a file in a model's or adapter's folder if it is outside that folder, else None.

    Links into the hub's cache count as inside: its snapshots, and `hf download --local-dir` once, link to its blobs.

    Raises:
        OSError: It does not exist, or is not accessible.
        RuntimeError: It is a link to itself.
    """
    target = path.resolve(strict=True)
    is_blob = target.parent.name == "blobs" and target.parent.parent.name.startswith("models--")
    return None if target.is_relative_to(folder.resolve()) or is_blob else target


def download_command(name: str, revision: str | None = None) -> str:
    """Return the command that downloads only the files of a hub model that the kit reads.

    Mistral's repositories hold the weights a second time, consolidated or pickled, which a bare ``hf download`` fetches
    too. The patterns are positional, because how ``--include`` takes several depends on the version.
    """
    command = f'hf download {name} "model*.safetensors" "*.json" "*.jinja" tokenizer.model'
    return f"{command} --revision {revision}" if revision else command


def read_text(path: Path) -> str:
    """Read one of a model's text files.

    Raises:
        ModelFileError: It cannot be read, or is not UTF-8.
    """
    try:
        return regular_files.read_text(path)
    except (OSError, ValueError) as exc:
        raise ModelFileError(f"{path}: not readable as text ({exc}); download the model again") from exc


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a model's JSON files.

    Raises:
        ModelFileError: It cannot be read, or is not a JSON object.
    """
    try:
        return read_object(path)
    except OSError as exc:
        raise ModelFileError(f"{path}: cannot be read ({exc.strerror}); download the model again") from exc
    except ValueError as exc:
        raise ModelFileError(f"{path}: {exc}; download the model again") from exc
