"""Measure the kit: the rows of a file read, rendered, tokenised and masked for training.

Run as:
    python ours.py ROWS.jsonl MODEL MAX_SEQ_LENGTH PROCESSES
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Print what was done in how many seconds, imports not counted."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from bench.data_preparation.work_done import cpu_seconds
    from kit.data.chat_tokenizer import ChatTokenizer
    from kit.data.dataset import load_file

    rows, model, length, processes = sys.argv[1:]
    started, worked = time.perf_counter(), cpu_seconds()
    file = load_file(Path(rows), ChatTokenizer.load(model), int(length), int(processes))
    seconds, worked = time.perf_counter() - started, cpu_seconds() - worked
    done = {"rows": len(file.rows), "tokens": file.rows.tokens, "trained": file.rows.trainable_tokens}
    print(json.dumps({"seconds": seconds, "cpu_seconds": worked, **done}))


if __name__ == "__main__":
    main()
