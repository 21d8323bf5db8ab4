"""The waiting-time benchmark: honest table, honest exit codes; the timing itself is `make bench-cli`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bench import bench_cli
from bench.cpu_tables import waiting_table
from bench.pairs import Pair, StepsBesideTrl, Timed, run_pair
from kit.plan.ledger import read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PASS = (sys.executable, "-c", "pass")


def test_a_ratio_above_one_means_that_the_kit_is_faster() -> None:
    timed = Timed(Pair("detect", PASS, PASS, 10.0), 0.5, 6.0)
    assert timed.ratio == pytest.approx(12.0)
    assert "| detect | 0.50 | 6.00 | 12.00 | 10 |" in waiting_table({f"cli/{timed.pair.name}": timed.as_mapping()})


def test_a_command_without_a_yardstick_is_only_timed() -> None:
    timed = run_pair(Pair("alone", PASS, None, None), rounds=1)
    assert timed.ratio is None
    assert timed.ours_seconds > 0


def test_a_failing_command_is_named_with_its_last_line() -> None:
    broken = (sys.executable, "-c", "raise SystemExit('no such thing')")
    with pytest.raises(RuntimeError, match="exit code 1: no such thing"):
        run_pair(Pair("broken", broken, None, None), rounds=1)


@pytest.mark.parametrize(("ratio", "code"), [(12.0, 0), (2.0, 1)])
def test_a_missed_goal_is_an_exit_code(
    ratio: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = Pair("detect", PASS, PASS, 10.0)

    def fake_pairs(_job: object) -> Sequence[Pair]:
        return [pair]

    monkeypatch.setattr(bench_cli, "prepare", lambda _job: None)
    monkeypatch.setattr(bench_cli, "pairs", fake_pairs)
    monkeypatch.setattr(bench_cli, "run_pair", lambda pair, _rounds: Timed(pair, 1.0, ratio))
    step = Timed(Pair("step", (), (), 0.98), 1.0, 1.0)
    steps = StepsBesideTrl((step, step), (100.0, 101.0))
    monkeypatch.setattr(bench_cli, "steps_beside_trl", lambda _job, _rounds: steps)
    assert bench_cli.main(["--ledger", str(tmp_path)]) == code
    (ledger,) = tmp_path.iterdir()
    assert [record.result.get("ratio") for record in read(ledger)] == [ratio, 1.0, None]
    assert ("goals missed: detect" in capsys.readouterr().out) == bool(code)


def test_no_rounds_is_wrong_use() -> None:
    assert bench_cli.main(["--rounds", "0"]) == 2


@pytest.mark.parametrize(
    ("each", "missed"), [((0.97, 0.97), True), ((0.94, 1.0, 0.95, 1.01), True), ((0.95, 1.02), False), ((0.9,), True)]
)
def test_a_goal_is_missed_however_unsure_the_ratio_is(each: tuple[float, ...], missed: bool) -> None:
    timed = Timed(Pair("step", (), (), 0.98), 1.0, 1.0, each)
    assert timed.is_missed == missed


def test_the_uncertainty_stands_beside_the_ratio() -> None:
    timed = Timed(Pair("step", (), (), 0.98), 0.25, 0.25, (0.97, 1.01))
    assert timed.uncertainty == pytest.approx(2 * 0.02828427 / 2**0.5)
    assert "| step | 0.250 | 0.250 | 0.990 ± 0.040 | 0.98 |" in waiting_table(
        {f"cli/{timed.pair.name}": timed.as_mapping()}
    )
