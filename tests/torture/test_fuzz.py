"""Mutants by the thousand: no traceback, nothing taken for what it does not say. ``make torture`` tries more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.data.pool import processes_for
from torture.fuzz_bases import BaseFuzzer
from torture.fuzz_configs import ConfigFuzzer
from torture.fuzz_files import FileFuzzer
from torture.fuzz_rows import RowFuzzer
from torture.fuzz_texts import TextFuzzer
from torture.fuzzing import Fuzzer, Tally, Trial, fuzz
from torture.row_mutants import ROWS_IN_A_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from torture.kills import Torture

CONFIGS, ROWS, BASES, FILES = 10_000, 100_000, 600, 500


def _fuzzed(fuzzer: Fuzzer, count: int, keep: Path) -> Tally:
    *_, tally = fuzz(fuzzer, 0, range(count), processes_for())
    assert tally.keep_faults(keep, fuzzer.suffix) == []
    assert tally.mutants == count
    return tally


@pytest.mark.slow
def test_ten_thousand_configs_are_refused_or_taken_for_what_they_say(tmp_path: Path) -> None:
    outcomes = _fuzzed(ConfigFuzzer(), CONFIGS, tmp_path).outcomes
    assert outcomes.total() == CONFIGS
    assert outcomes["refused"] > outcomes["taken for what it says"] > CONFIGS // 20


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_trained_on_for_what_they_say_or_named(tmp_path: Path) -> None:
    outcomes = _fuzzed(RowFuzzer(), -(-ROWS // ROWS_IN_A_FILE), tmp_path).outcomes
    assert outcomes["rows fed"] >= ROWS
    assert outcomes["rows taken"] + outcomes["rows refused"] == outcomes["rows fed"]
    assert min(outcomes["rows taken"], outcomes["rows refused"]) > ROWS // 5


@pytest.mark.slow
def test_damaged_bases_are_refused_or_every_weight_is_one_of_their_files(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    tally = _fuzzed(BaseFuzzer(), BASES, tmp_path)
    assert tally.outcomes["refused"] > tally.outcomes["taken, each weight as in its files"] > BASES // 10
    assert len(tally.kinds) == 22


@pytest.mark.slow
def test_hostile_text_never_gets_through_to_the_terminal(tmp_path: Path) -> None:
    tally = _fuzzed(TextFuzzer(), 300, tmp_path)
    assert set(tally.outcomes) == {"shown", "not shown"}
    assert tally.outcomes["shown"] > 200


@pytest.mark.slow
def test_damaged_files_of_a_run_are_named_and_trip_no_reader(small_torture: Torture, tmp_path: Path) -> None:
    tally = _fuzzed(FileFuzzer(small_torture.folder / "peace"), FILES, tmp_path)
    assert {kind.partition(":")[0] for kind in tally.kinds} == {"run.json", "metrics.jsonl", "checkpoints", "adapter"}


@pytest.mark.parametrize("fuzzer", [ConfigFuzzer(), RowFuzzer()], ids=lambda fuzzer: fuzzer.name)
def test_a_seed_and_a_number_make_the_same_mutant_again(fuzzer: Fuzzer) -> None:
    assert Trial(fuzzer, 3).mutant(17) == Trial(fuzzer, 3).mutant(17)
    assert Trial(fuzzer, 3).mutant(17) != Trial(fuzzer, 4).mutant(17)


def test_a_silent_acceptance_is_found_and_its_mutant_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kit.config import resolve

    honest = resolve.violations
    monkeypatch.setattr(resolve, "violations", lambda values: [one for one in honest(values) if one.kind != "unknown"])
    tally = Trial(ConfigFuzzer(), 0)(range(120))
    assert tally.found
    assert all(
        "has a key that is none" in found.message or "section that is none" in found.message for found in tally.found
    )
    said = tally.keep_faults(tmp_path, ".yaml")
    first = tally.found[0]
    assert f"configs mutant {first.number} " in said[0]
    assert (tmp_path / f"configs-{first.number}.yaml").read_bytes() == Trial(ConfigFuzzer(), 0).mutant(
        first.number
    ).content


def test_a_traceback_and_a_hanging_mutant_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    from torture import fuzz_rows, fuzzing

    def crash(_path: object, *_more: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(fuzz_rows, "_as_trained", crash)
    (found,) = Trial(RowFuzzer(), 0)(range(1)).found
    assert "ended in KeyError" in found.message

    def hang(_path: object) -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz_rows, "_as_trained", hang)
    monkeypatch.setattr(fuzzing, "HUNG_AFTER_S", 1)
    (found,) = Trial(RowFuzzer(), 0)(range(1)).found
    assert found.message == "took longer than 1 s"
