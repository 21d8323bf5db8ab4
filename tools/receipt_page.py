"""docs/RECEIPT.md, made from the declared keys of the receipt. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.run_directory.receipt import SCHEMA_VERSION
from kit.run_directory.receipt_keys import EVALUATION_METRICS, LAST_STEP, RECEIPT, RUN, STEP_METRICS, Key, top_level
from kit.runs.rerun_verdict import ABSOLUTE_TOLERANCE, EVALUATION_TOLERANCE, STEP_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD = f"""<!-- Generated from scripts/kit/run_directory/receipt_keys.py by `make docs`; do not edit. -->
# The receipt: `run.json` and `metrics.jsonl`

Every run writes `outputs/<run_name>/run.json` atomically: before its first step, at every checkpoint, at its end. A
resumed run continues it. `make verify` checks its seal (`sha256`) and every file it names by hash.

Units are bytes, seconds and joules; dates ISO 8601 in UTC; hashes SHA-256 in hexadecimal, of a file's bytes unless
stated. `null` means unknown or not applicable, and replaces NaN and infinity. Of environment variables, which carry
secrets, only those named below are written.

`schema_version` is {SCHEMA_VERSION}. Within a version, keys are only added: ignore those you do not know. Removing a
key, or changing its name, type, unit or meaning, raises it. `make reproduce` refuses a higher one.

## `run.json`

Keys are written before the first step, unless marked: *model*, once the model is built; *step*, at each checkpoint;
*end*, when the run finished; *only …*, in that case alone. `[]` marks a list of objects.
"""
_KEPT = """A resumed run keeps {run};
from its last saved step also {step}. Other keys describe the last session.

Energy is the GPU's own counter (NVML, Volta or later), other programs and idle time included; `null` on a CPU, a Mac or
a MIG slice.
"""
_TAIL = f"""A resumed run cuts it back to its checkpoint and appends.

## Reproduce a run

```sh
make reproduce RUN=my-run ARGS=--check-only    # what differs between the receipt and this machine
make reproduce RUN=my-run                      # train it again and compare
```

Refused: an edited receipt or `metrics.jsonl`, an unfinished run, one changed by `--allow-changed`, other data, another
base model. If these only moved: `SET="data.train_file=… model.model_name_or_path=…"`.

These differences let bits differ: code (unless `scripts/` is the same), stack, packages that compute, platform, CPU
model, GPU, driver, `resumed_inexactly`, `compute_changes`. These do not: Python, lock, image, other packages.

The rerun takes the receipt's configuration, CPU threads and hub commit, reports to nobody, and writes to
`outputs/my-run-reproduced` (`ARGS="--out NAME"`). The same command resumes it; `ARGS=--overwrite` starts
over. Compared are the initial adapter, every training and validation loss and the trained adapter; the result is also
in its `reproduction.json`:

| verdict | exit code | |
|---|---|---|
| bit-equal | 0 | all are equal to the last bit |
| equal within … | 0 | bits may differ (as above, or on a GPU), every loss is within tolerance |
| differs from step N on | 1 | a loss exceeds it, or bits differ that may not |

Tolerances: {STEP_TOLERANCE:.0%} of a training loss, {EVALUATION_TOLERANCE:.0%} of a validation loss, or
{ABSOLUTE_TOLERANCE:g}; reasons in `scripts/kit/runs/rerun_verdict.py`.
"""


def receipt_page() -> str:
    """Return the page in Markdown."""
    parts = [_HEAD]
    for title, keys in RECEIPT.items():
        parts.append(f"### {title}\n\n{_list(keys)}")
    parts.append(_KEPT.format(run=_names(top_level(RUN)), step=_names(top_level(LAST_STEP))))
    parts.append(f"## `metrics.jsonl`\n\nOne JSON object per line. Training steps:\n\n{_list(STEP_METRICS)}")
    parts += [f"Evaluations:\n\n{_list(EVALUATION_METRICS)}", _TAIL]
    return "\n".join(parts)


def _list(keys: Iterable[Key]) -> str:
    return "".join(f"{'  ' * key.path.count('.')}- {_entry(key)}\n" for key in keys)


def _entry(key: Key) -> str:
    name = f"`{key.path.rpartition('.')[2]}`" + (f" (*{key.when}*)" if key.when else "")
    return f"{name}: {key.meaning}" if key.meaning else name


def _names(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in sorted(keys))
