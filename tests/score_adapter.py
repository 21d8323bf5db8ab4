"""Score a base with an adapter under whichever stack runs this: one mean loss per validation row, as JSON.

Run by test_stacks_agree.py: python tests/score_adapter.py BASE ADAPTER DATA
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from kit.cli.interpreter import PROJECT_ROOT
from kit.cli.quiet_libraries import quiet_imports
from kit.config.resolve import resolve
from kit.data.chat_tokenizer import ChatTokenizer
from kit.data.dataset import load_file

with quiet_imports():
    import torch

    from kit.modeling.adapter_in_use import load_adapter
    from kit.modeling.model import load_base_model


def main(base: str, adapter: str, data: str) -> None:
    changes = {"model.model_name_or_path": base, "quantization.load_in_4bit": False}
    settings = resolve(PROJECT_ROOT / "configs/training_config_demo.yaml", changes).settings
    model = load_adapter(load_base_model(settings, "cpu"), Path(adapter))
    rows = load_file(Path(data), ChatTokenizer.load(base), settings.training.max_seq_length).rows
    scores = []
    for row in rows:
        ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        scores.append(float(torch.nn.functional.cross_entropy(logits[0, :-1].double(), labels[0, 1:])))
    json.dump(scores, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
