"""Every row is in one bin; bins are round, few, and do not follow one long row."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kit.audit.histogram import Histogram, bars, histogram, quantile

LENGTHS = st.dictionaries(st.integers(1, 100_000), st.integers(1, 1000), min_size=1, max_size=50)


@given(LENGTHS, st.integers(3, 30))
def test_every_row_is_in_one_bin(lengths: dict[int, int], bins: int) -> None:
    chart = histogram(lengths, bins)
    assert sum(chart.counts) == sum(lengths.values())
    assert list(chart.edges) == sorted(set(chart.edges))
    assert len(chart.edges) == len(chart.counts) + 1
    assert len(chart.counts) <= bins
    for start, end, count in zip(chart.edges, chart.edges[1:], chart.counts, strict=False):
        assert count == sum(rows for length, rows in lengths.items() if start <= length < end)


def test_one_long_row_does_not_flatten_the_rest() -> None:
    chart = histogram({**dict.fromkeys(range(10, 110), 10), 90_000: 1})
    assert chart.edges[-2:] == (110, 90_001)
    assert chart.edges[1] - chart.edges[0] == 10


def test_no_rows_are_no_bins() -> None:
    assert histogram({}).counts == ()
    assert bars(histogram({})) == []


def test_bars_are_as_long_as_counts_and_a_row_is_never_invisible() -> None:
    lines = bars(Histogram((0, 10, 20, 30, 46), (1000, 0, 500, 1)), 25)
    drawn = [line.count("█") for line in lines]
    assert max(drawn) == 40
    assert 20 in drawn
    assert min(count for count in drawn if count) == 1
    assert lines[3].endswith("  cut")
    assert lines[2].endswith("  partly cut")
    assert "cut" not in lines[0]


def test_a_quantile_is_a_length_that_so_many_do_not_exceed() -> None:
    assert quantile({1: 50, 2: 49, 9: 1}, 0.5) == 1
    assert quantile({1: 50, 2: 49, 9: 1}, 0.95) == 2
    assert quantile({1: 50, 2: 49, 9: 1}, 1) == 9
