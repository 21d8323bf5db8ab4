"""A step that does not end is noticed, told with where it stands, and ended where that was asked for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from kit.supervise import stall
from kit.supervise.stall import Heartbeat, Stall, StallWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_S = 5.0


def _looks(pulse: Heartbeat, begin: float, seconds: float, gap: float = LOOK_S) -> Iterator[float]:
    now = begin
    while now <= begin + seconds:
        yield pulse.look(now)
        now += gap


def _stalls_after(pulse: Heartbeat, begin: float, seconds: float = 100_000) -> float | None:
    return next((quiet for quiet in _looks(pulse, begin, seconds) if quiet >= pulse.limit_s), None)


def _trained(steps: int, each_s: float, timeout: float = 600) -> tuple[Heartbeat, float]:
    pulse, now = Heartbeat(timeout, LOOK_S), 0.0
    for step in range(steps):
        pulse.beat(step, now)
        list(_looks(pulse, now, each_s - LOOK_S))
        now += each_s
    pulse.beat(steps, now)
    return pulse, now


def test_quick_steps_stall_after_the_timeout() -> None:
    assert _stalls_after(*_trained(20, each_s=10)) == 600


def test_slow_steps_stall_after_ten_times_the_usual() -> None:
    assert _stalls_after(*_trained(20, each_s=300)) == 3000


def test_one_long_step_does_not_change_the_usual() -> None:
    pulse, now = _trained(20, each_s=100)
    pulse.beat(21, now + 5_000)
    assert pulse.limit_s == 1000


def test_the_first_step_may_compile() -> None:
    pulse = Heartbeat(600, LOOK_S)
    pulse.beat(0, 0.0)
    assert _stalls_after(pulse, 0.0) == 3600


def test_whatever_is_finished_begins_the_count_anew() -> None:
    pulse, now = _trained(20, each_s=10)
    for _ in range(30):  # an evaluation
        assert _stalls_after(pulse, now, 300) is None
        pulse.beat(None, now)
        now += 300
    assert pulse.limit_s == 600


@pytest.mark.parametrize("away_s", [3600.0, 7 * 86_400.0])
def test_a_laptop_that_slept_has_not_stalled(away_s: float) -> None:
    pulse, now = _trained(20, each_s=10)
    quiet = max(_looks(pulse, now, 300))
    assert pulse.look(now + away_s) <= quiet + 2 * LOOK_S < 600


class _Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, Stall]] = []
        self.came = threading.Condition()

    def _hear(self, what: str, found: Stall) -> None:
        with self.came:
            self.heard.append((what, found))
            self.came.notify_all()

    def stalled(self, found: Stall) -> None:
        self._hear("stalled", found)

    def went_on(self, found: Stall) -> None:
        self._hear("went on", found)

    def give_up(self, found: Stall) -> None:
        self._hear("gave up", found)

    def wait_for(self, *expected: str) -> list[Stall]:
        with self.came:
            assert self.came.wait_for(lambda: [what for what, _ in self.heard] == list(expected), 60), self.heard
            return [found for _, found in self.heard]


@pytest.fixture
def _short_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "FIRST_STEP", 1)


_short = pytest.mark.usefixtures("_short_first_step")


@_short
def test_a_stall_is_told_once_with_where_the_training_stands_and_that_it_went_on() -> None:
    listener = _Listener()
    with StallWatch(0.1, listener, lambda: "step 7", None) as watch:
        watch.beat(6)
        (found,) = listener.wait_for("stalled")
        assert (found.doing, found.seconds >= 0.1) == ("step 7", True)
        main, *_ = found.stands.split("\nthread ")[1:]
        assert main.startswith("MainThread")
        assert "listener.wait_for" in main
        watch.beat(6)
        _, after = listener.wait_for("stalled", "went on", "stalled")[:2]
        assert after.seconds >= found.seconds


@_short
def test_that_it_went_on_is_told_although_the_training_ends_right_after() -> None:
    listener = _Listener()
    with StallWatch(0.1, listener, lambda: "step 7", None) as watch:
        watch.beat(6)
        listener.wait_for("stalled")
        watch.beat(6)
    assert [what for what, _ in listener.heard[:2]] == ["stalled", "went on"]


@_short
def test_what_is_under_way_besides_a_step_is_named() -> None:
    listener = _Listener()
    with StallWatch(0.1, listener, lambda: "step 7", None) as watch, watch.during("saving step 6"):
        (found,) = listener.wait_for("stalled")
    assert found.doing == "saving step 6"


@_short
def test_a_stall_that_stays_is_ended_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "GRACE_S", 0.1)
    listener, ended = _Listener(), threading.Event()

    def end() -> None:
        ended.set()
        watch.beat()

    with StallWatch(0.1, listener, lambda: "step 7", end) as watch:
        assert ended.wait(60)
    assert [what for what, _ in listener.heard[:2]] == ["stalled", "gave up"]


@_short
def test_last_words_that_hang_do_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "GRACE_S", 0.1)
    monkeypatch.setattr(stall, "LAST_WORDS_S", 0.1)
    never, ended = threading.Event(), threading.Event()

    class Hanging(_Listener):
        def stalled(self, found: Stall) -> None:
            super().stalled(found)
            never.wait(60)

        def give_up(self, found: Stall) -> None:
            super().give_up(found)
            never.wait(60)

    def end() -> None:
        ended.set()
        watch.beat()

    with StallWatch(0.1, Hanging(), lambda: "step 7", end) as watch:
        assert ended.wait(60)
    never.set()


def test_zero_never_looks() -> None:
    before = set(threading.enumerate())
    with StallWatch(0, _Listener(), lambda: "step 7", None) as watch:
        watch.beat(1)
        time.sleep(0.05)
        assert set(threading.enumerate()) <= before
