"""The Cerberus schema as a page: every key with its meaning, its values, its default and where it matters."""

from __future__ import annotations

from typing import Any

from kit.config import schema
from kit.config.platforms import PLATFORMS
from kit.config.validator import describe
from kit.config.yaml_writer import scalar

_HEAD = """<!-- Generated from scripts/kit/config/keys.py by `make docs`; do not edit. -->
# Configuration reference

One YAML file describes a run. Missing keys take their defaults; unknown keys are refused with the nearest known name.
Override any value for one run:

```sh
make config CONFIG=configs/training_config_demo.yaml SET="training.learning_rate=1e-3 lora.r=8"
python scripts/config_loader.py configs/training_config_demo.yaml training.learning_rate=1e-3 lora.r=8
```

Editors validate against [training_config.schema.json](training_config.schema.json), which the shipped files name in
their first line for the YAML language server; only the kit refuses `4.0` for a whole number and `.nan`. `make validate`
checks what depends on the machine, the stack or several keys.
"""


def reference_page() -> str:
    """Return the reference page in Markdown."""
    parts = [_HEAD]
    for name, body in schema.SCHEMA.items():
        parts.append(f"## {name}\n\n{body['meta']['meaning']}\n")
        parts.append(_table(body["schema"]))
    return "\n".join(parts)


def _table(keys: dict[str, dict[str, Any]]) -> str:
    rows = ["| key | meaning | values | default |", "|---|---|---|---|"]
    rows += [
        f"| `{key}` | {_meaning(rule)} | {_cell(describe(rule))} | {_default(rule)} |" for key, rule in keys.items()
    ]
    return "\n".join(rows) + "\n"


def _meaning(rule: dict[str, Any]) -> str:
    meta = rule["meta"]
    words = [meta["meaning"]]
    if meta["platforms"] != PLATFORMS:
        words.append(f"On {', '.join(meta['platforms'])} only.")
    if meta["also_known_as"]:
        words.append(f"Elsewhere: {', '.join(f'`{name}`' for name in meta['also_known_as'])}.")
    return _cell(" ".join(words))


def _default(rule: dict[str, Any]) -> str:
    return f"`{scalar(rule['default'])}`" if "default" in rule else "**required**"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
