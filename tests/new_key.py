"""The kit with one key more, by one edit: a declaration added to ``scripts/kit/config/keys.py`` of a copy."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

KEY, DEFAULT = "training.adam_beta2", 0.999
_BEFORE = "    bf16: bool = key("
_DECLARED = (
    '    adam_beta2: float = key(0.999, "How slowly AdamW forgets.", "beta2", to_trainer=True, within=(0.0, 1.0))\n'
)


def kit_with_new_key(folder: Path) -> Path:
    """Copy the kit's code, with everything else of the project beside it, and declare the key; return its scripts/."""
    for entry in PROJECT_ROOT.iterdir():
        if entry.name not in {"scripts", "outputs", ".git"}:
            (folder / entry.name).symlink_to(entry)
    scripts = folder / "scripts"
    shutil.copytree(PROJECT_ROOT / "scripts", scripts, ignore=shutil.ignore_patterns("__pycache__"))
    keys = scripts / "kit/config/keys.py"
    text = keys.read_text(encoding="utf-8")
    assert text.count(_BEFORE) == 1
    keys.write_text(text.replace(_BEFORE, _DECLARED + _BEFORE), encoding="utf-8")
    return scripts
