"""Measure all of `make data`: read, check, look for repeats and secrets, count tokens, split, write.

Run as:
    python whole.py ROWS.jsonl MODEL MAX_SEQ_LENGTH PROCESSES
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Print what was done in how many seconds, imports not counted."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from bench.data_preparation.work_done import cpu_seconds
    from kit.cli.command import call
    from kit.commands import data

    rows, model, length, processes = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=Path(rows).parent) as folder:
        arguments = [rows, "--model", model, "--max-seq-length", length, "--processes", processes, "--no-cache"]
        arguments += ["--dedupe", "exact", "--out", f"{folder}/out", "--json"]
        output = io.StringIO()
        started, worked = time.perf_counter(), cpu_seconds()
        with contextlib.redirect_stdout(output):
            code = call(data, arguments)
        seconds, worked = time.perf_counter() - started, cpu_seconds() - worked
    if code:
        raise SystemExit(output.getvalue())
    card = json.loads(output.getvalue())["card"]
    sides = card["tokens"].values()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": worked,
                "rows": card["steps"]["read"],
                "tokens": sum(side["tokens"] for side in sides),
                "trained": sum(side["trainable_tokens"] for side in sides),
            }
        )
    )


if __name__ == "__main__":
    main()
