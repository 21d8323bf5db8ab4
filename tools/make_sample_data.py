"""Write data/sample/ again: the small data set the demo trains on, the same each time.

Run as:
    python -m tools.make_sample_data
"""

from __future__ import annotations

from kit.cli.command import run_main
from kit.cli.interpreter import PROJECT_ROOT
from kit.demo.task import sample_files


def main() -> int:
    """Write the files; return the exit code."""
    for name, content in sample_files().items():
        path = PROJECT_ROOT / "data" / "sample" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(f"{path.relative_to(PROJECT_ROOT)}: {content.count(chr(10)):,} rows")
    return 0


if __name__ == "__main__":
    run_main(main)
