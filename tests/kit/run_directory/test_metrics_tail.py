"""The growing end of a metrics file: every whole line once, no half of one, a new file from its beginning."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kit.run_directory.metrics_tail import MetricsTail


def test_each_line_is_read_once_and_a_half_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.read() == ([], False)  # not there yet
    path.write_text('{"step": 1}\n{"st')
    assert tail.read() == ([{"step": 1}], False)
    assert tail.read() == ([], False)
    with path.open("a") as file:
        file.write('ep": 2}\n')
    assert tail.read() == ([{"step": 2}], False)


def test_a_run_that_is_started_again_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    tail = MetricsTail(path)
    tail.read()
    path.write_text('{"step": 1}\n')  # shorter, in the same file
    assert tail.read() == ([{"step": 1}], True)
    path.rename(tmp_path / "old.jsonl")
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')  # longer, in another one
    assert tail.read() == ([{"step": 1}, {"step": 2}, {"step": 3}], True)


def test_what_is_no_line_of_metrics_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'\xff\xfe\nnull\n[1]\n{"step": "1"}\n{"loss": 2}\n'
        + b"[" * 100_000
        + b'\n{"step": 1'
        + b"0" * 400
        + b'}\n{"step": 3}\n'
    )
    assert MetricsTail(path).read() == ([{"step": 3}], False)


@given(cuts=st.lists(st.integers(1, 400), max_size=12))
def test_however_the_file_grows_every_line_comes_once(tmp_path_factory: object, cuts: list[int]) -> None:
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"  # type: ignore[attr-defined]
    text = "".join(json.dumps({"step": step, "note": "é"}, ensure_ascii=False) + "\n" for step in range(20)).encode()
    tail, seen = MetricsTail(path), []
    for end in [*sorted(cuts), len(text)]:
        path.write_bytes(text[:end]) if not path.exists() else path.open("r+b").write(text[:end])
        seen += [line["step"] for line in tail.read()[0]]
    assert seen == list(range(20))
