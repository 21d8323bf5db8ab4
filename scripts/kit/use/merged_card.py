"""The model card that goes with a merged model: what it is made of, how it was checked, how to use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kit.cli.screen import code

if TYPE_CHECKING:
    from kit.use.loading import LoadChoice
    from kit.use.merge_check import Checked

_CARD = """\
---
library_name: transformers
base_model: {quoted}
base_model_relation: merge
tags: [qlora, merged]
---

# `{name}`

`{base}`{revision} with the LoRA adapter of the run `{name}` merged into its weights, in {dtype}.

{trained}

{checked}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

Tokenizer and chat template are the base's own files. `merge.json` names what was merged; the licence is the base's.
"""


def render_merged_card(choice: LoadChoice, dtype: str, checked: Checked | None) -> str:
    """Write the card."""
    settings = choice.run.settings
    model, quantization = settings.model, settings.quantization
    if quantization.load_in_4bit:
        trained = (
            f"The adapter was trained on the base rounded to 4 bits ({quantization.bnb_4bit_quant_type}), and is "
            f"merged into the base as it is, in {dtype}: the two differ by that rounding, so the merged model's "
            "answers are close to those measured in training, but not identical."
        )
    else:
        trained = "The adapter was trained on the unquantised base."
    if checked is None or checked.comparison is None:
        checked_words = "The merged weights were not compared with base + adapter."
    else:
        from kit.use.merge_check import describe_logits, describe_weights

        lines = (describe_weights(checked.weights, dtype), describe_logits(checked.comparison))
        checked_words = "Checked when it was merged:\n\n" + "\n".join(f"- {line}" for line in lines)
    return _CARD.format(
        quoted=json.dumps(model.model_name_or_path, ensure_ascii=False),
        name=code(choice.run.name),
        base=code(model.model_name_or_path),
        revision=f" at revision `{code(model.revision)}`" if model.revision else "",
        dtype=dtype,
        trained=trained,
        checked=checked_words,
    )
