"""One base that stays on the device and is borrowed in turn: made or loaded once. Imports torch."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class ResidentBase:
    """A base model whose borrowers may change anything about it but its weights."""

    def __init__(self, model: Any) -> None:
        """Keep a base as it is now."""
        self._model = model
        self._modules = [(module, type(module), _copied(vars(module))) for module in model.modules()]
        self._config = _copied(vars(model.config))

    @contextmanager
    def borrowed(self, attention: str) -> Iterator[Any]:
        """Give the base for a while, then put back what was patched, hooked, replaced or set, and free the rest.

        Args:
            attention: transformers' name of the attention to compute with.
        """
        free()  # a borrower before that failed held its tensors for as long as its exception was under way
        self._model.config._attn_implementation = attention  # noqa: SLF001 - the modules ask the one configuration
        try:
            yield self._model
        finally:
            for module, kind, state in self._modules:
                module.__class__ = kind
                vars(module).clear()
                vars(module).update(_copied(state))
            vars(self._model.config).clear()
            vars(self._model.config).update(_copied(self._config))
            free()


def free() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Copy an object's attributes, and their containers one level deep: hooks and submodules live in such."""
    return {name: value.copy() if isinstance(value, (dict, list, set)) else value for name, value in state.items()}
