"""The edges of a training session: memory and hashes beside it, the saved adapter after it. Imports torch."""

from __future__ import annotations

import hashlib
import resource
import shutil
import sys
from typing import TYPE_CHECKING, Any

import psutil
import torch

from kit.data.dataset import file_sha256
from kit.durable import fsync_file, fsync_folder
from kit.model.files import ModelFileError, find
from kit.model.tokenizer_files import make_readable
from kit.run.adapter_card import render_card
from kit.stack.model import save_adapter

if TYPE_CHECKING:
    from kit.config.settings import Settings

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


class MemoryMeter:
    """Reads the memory of this process's part of a run: allocated on CUDA, held by Metal, resident on a CPU."""

    def __init__(self, platform: str) -> None:
        """Start with what is in use now."""
        self._on_cuda, self._on_mps = platform in {"h100", "cuda"}, platform == "m4"
        self._process = psutil.Process()
        self._highest = 0
        self.read()

    def read(self) -> int:
        """Return the peak since the last reading on CUDA, in bytes, and elsewhere what is in use now."""
        if self._on_cuda:
            now = int(torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
        elif self._on_mps:
            now = int(torch.mps.driver_allocated_memory())
        else:
            now = int(self._process.memory_info().rss)
        self._highest = max(self._highest, now)
        return now

    def peak(self) -> int:
        """Return the highest so far, in bytes."""
        self.read()
        if self._on_cuda or self._on_mps:
            return self._highest
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def adapter_sha256(model: Any) -> str:
    """Hash the adapter's weights by name and value: equal hashes, equal adapters, whichever file they stand in."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if weight.requires_grad:
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_run(model: Any, settings: Settings, receipt: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Write ``adapter/``: weights, portable configuration, the base's tokenizer files, the model card.

    Written aside, flushed and renamed, so that an ``adapter/`` that is there is whole.

    Returns:
        Adapter fields that were left out (see ``save_adapter``), and each file's SHA-256.
    """
    folder = settings.run_directory / "adapter"
    aside = settings.run_directory / ".adapter.partial"
    before = settings.run_directory / ".adapter.replaced"
    for leftover in (aside, before):
        shutil.rmtree(leftover, ignore_errors=True)
    left_out = save_adapter(model, aside)
    for name in _TOKENIZER_FILES:
        try:
            # The base's own files: a tokenizer saved by transformers 5 does not load in transformers 4.
            shutil.copyfile(find(settings.model.model_name_or_path, name, settings.model.revision), aside / name)
        except ModelFileError:
            continue
    make_readable(aside)
    (aside / "README.md").write_text(render_card(settings, receipt), encoding="utf-8")
    hashes = {}
    for path in sorted(aside.iterdir()):
        fsync_file(path)
        hashes[path.name] = file_sha256(path)
    fsync_folder(aside)
    if folder.exists():  # of the same run, stopped between this and its receipt
        folder.rename(before)
    aside.replace(folder)
    fsync_folder(settings.run_directory)
    shutil.rmtree(before, ignore_errors=True)
    return left_out, hashes
