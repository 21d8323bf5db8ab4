"""The card beside an adapter is true to the run, and its front matter and its code can be read by machines."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import yaml

from kit.adapter.card import render_card
from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve

DEMO = PROJECT_ROOT / "configs" / "training_config_demo.yaml"
RECEIPT = {
    "data": [{"rows": 2000}, {"rows": 100}],
    "tokens": 123456,
    "steps_done": 300,
    "eval_loss": 0.25,
    "train_loss": 0.125,
    "packages": {"torch": "2.10.0", "transformers": "5.23.0", "peft": "0.21.2", "trl": "1.16.0", "other": "1"},
}


def _card(receipt: dict[str, Any] | None = None, **overrides: Any) -> str:
    values = {key.replace("__", "."): value for key, value in overrides.items()}
    return render_card(resolve(DEMO, values).settings, RECEIPT if receipt is None else receipt)


def test_the_card_says_what_was_trained_and_how_it_went() -> None:
    card = _card(
        training__run_name="first",
        training__per_device_train_batch_size=8,
        training__gradient_accumulation_steps=2,
        training__learning_rate=2e-3,
        training__lr_scheduler_type="cosine",
        lora__r=16,
        lora__lora_alpha=32,
        lora__lora_dropout=0.05,
        lora__target_modules=["q_proj", "k_proj"],
    )
    for text in (
        "# first",
        "trained in 4 bits (nf4) on 2,000 rows of `data/sample/train.jsonl` (123,456 tokens seen)",
        "| validation loss | 0.2500 |",
        "| last training loss | 0.1250 |",
        "| steps x rows per step | 300 x 16 |",
        "| LoRA | r=16, alpha=32, dropout=0.05, on q_proj, k_proj |",
        "| learning rate | 0.002, cosine |",
        "| stack | torch 2.10.0, transformers 5.23.0, peft 0.21.2, trl 1.16.0 |",
    ):
        assert text in card


def test_what_was_not_measured_is_said_so() -> None:
    card = _card({**RECEIPT, "eval_loss": None, "train_loss": None, "packages": {}})
    assert "| validation loss | not measured |" in card
    assert "| last training loss | not measured |" in card


def test_an_unquantised_run_says_so() -> None:
    assert "trained unquantised on" in _card(quantization__load_in_4bit=False)


@pytest.mark.parametrize(
    "name", ["owner/model", "../models/a: b #c", 'a "quoted" {name}', "C:\\models\\base", "naïve/🦙"]
)
@pytest.mark.parametrize("revision", [None, "abc123", 'v"1'])
def test_front_matter_and_code_carry_the_base_and_its_revision(name: str, revision: str | None) -> None:
    card = _card(model__model_name_or_path=name, model__revision=revision)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {"library_name": "peft", "base_model": name, "tags": ["qlora", "lora"]}
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    loads = [node for node in ast.walk(ast.parse(code[1])) if isinstance(node, ast.Call)]
    arguments = [
        [ast.literal_eval(value) for value in (*call.args, *(keyword.value for keyword in call.keywords))]
        for call in loads
        if "Auto" in ast.unparse(call.func)
    ]
    assert arguments == [[name] if revision is None else [name, revision]] * 2
