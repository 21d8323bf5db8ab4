"""The edges of a training session: memory and hashes beside it, the saved adapter after it. Imports torch."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from typing import TYPE_CHECKING, Any

import torch

from kit.adapter.card import render_card
from kit.config.platforms import CUDA_PLATFORMS
from kit.files.digest import file_sha256
from kit.files.durable import fsync_file, fsync_folder
from kit.files.own_files import take_place
from kit.model.base import TOKENIZER_FILES, find_base
from kit.model.tokenizer_files import make_readable
from kit.model.tokenizer_form import FormError
from kit.modeling.adapter_in_use import SavedAdapterError, check_loads_back
from kit.modeling.model import save_adapter
from kit.modeling.process_memory import PeakSampler
from kit.run_directory.names import ADAPTER, ADAPTER_FILES, CARD

if TYPE_CHECKING:
    from kit.config.settings import Settings


class MemoryMeter:
    """Reads this process's memory: allocated on CUDA, held by Metal, its own on a CPU."""

    def __init__(self, platform: str) -> None:
        """Start with what is in use now."""
        self._on_cuda, on_mps = platform in CUDA_PLATFORMS, platform == "m4"
        if self._on_cuda:
            torch.cuda.init()  # before it there are no figures
        self._sampler = None if self._on_cuda or on_mps else PeakSampler()
        self._highest = 0
        self.read()

    def read(self) -> int:
        """Return the peak since the last reading, in bytes; on MPS what is in use now."""
        if self._on_cuda:
            now = int(torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
        elif self._sampler:
            now = self._sampler.take()
        else:
            now = int(torch.mps.driver_allocated_memory())
        self._highest = max(self._highest, now)
        return now

    def peak(self) -> int:
        """Return the highest so far, in bytes."""
        self.read()
        return self._highest

    def close(self) -> None:
        """Stop sampling between readings."""
        if self._sampler:
            self._sampler.close()


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

    Written aside, loaded back and compared, flushed and renamed, so that an ``adapter/`` is always complete
    and holds what was trained.

    Returns:
        Adapter fields that were left out (see ``save_adapter``), and each file's SHA-256.

    Raises:
        SavedAdapterError: What was saved loads as something else; it is removed.
    """
    folder = settings.run_directory / ADAPTER
    aside = settings.run_directory / f".{ADAPTER}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    left_out = save_adapter(model, aside)
    try:
        check_loads_back(model, aside)
    except SavedAdapterError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    base = find_base(settings.model.model_name_or_path, settings.model.revision, download=False)
    for name in TOKENIZER_FILES:
        if name in base.small:
            # The base's own files: a tokenizer saved by transformers 5 does not load in transformers 4.
            shutil.copyfile(base.small[name], aside / name)
    with contextlib.suppress(FormError):  # then it is for newer libraries alone, as the base is
        make_readable(aside)
    (aside / CARD).write_text(render_card(settings, receipt), encoding="utf-8")
    hashes = {}
    for path in sorted(aside.iterdir()):
        fsync_file(path)
        hashes[path.name] = file_sha256(path)
    fsync_folder(aside)
    take_place(aside, folder, lambda _: ADAPTER_FILES)  # of one of the same run, stopped between this and its receipt
    return left_out, hashes
