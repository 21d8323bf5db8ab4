"""The documentation says what the ledger says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench import document
from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_measured_parts_are_up_to_date() -> None:
    assert document.main(["--check"]) == 0


def test_a_page_whose_figures_are_not_the_ledgers_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "DOCS", tmp_path)
    page = tmp_path / "BENCHMARKS.md"
    page.write_bytes((PROJECT_ROOT / "docs" / "BENCHMARKS.md").read_bytes())
    assert document.main([]) == 0
    figures = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"(\| kit defaults \| )[\d,]+", r"\g<1>1", figures, count=1), encoding="utf-8")
    assert page.read_text(encoding="utf-8") != figures
    assert document.main(["--check"]) == 1
    assert document.main([]) == 0
    assert page.read_text(encoding="utf-8") == figures
