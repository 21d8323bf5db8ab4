"""What several test modules share."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from kit.cli.foreground import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The test models are tiny: several threads would wait for each other, for minutes on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

with contextlib.suppress(ImportError):  # the tests of the reference stack do without
    from hypothesis import HealthCheck, settings

    # What passed once passes again, on any machine, however busy. --hypothesis-profile=search takes other examples.
    steady = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("steady", steady)
    settings.register_profile("search", steady, derandomize=False)
    settings.load_profile("steady")

# A shell starts what it runs in the background with Ctrl-C ignored, which processes hand down; tests send it to theirs.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Put the signals' handlers back: a run that was asked to stop takes none any more, for its process ends."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Begin each test with the same random numbers, whatever ran before it."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: on several cores, what is begun last should be short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a base of the demo's shape with random weights: real files, and nothing learnt."""
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    from kit.demo.base import new_model, save_base
    from kit.demo.tokenizer import byte_tokenizer

    folder = tmp_path_factory.mktemp("tiny-base")
    tokenizer = byte_tokenizer()
    save_base(new_model(tokenizer.get_vocab_size(), seed=0), tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def adapter_run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a finished run on an unquantised ``tiny_base``; its adapter is random. Not to be written to."""
    from adapter_run import make_run

    return make_run(tiny_base, tmp_path_factory.mktemp("runs") / "demo", quantization__load_in_4bit=False)
