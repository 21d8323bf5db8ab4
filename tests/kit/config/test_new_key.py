"""A key with a default is one edit, of its declaration: everything else follows, and earlier runs are still the same.

Each test asks a copy of the kit that has one key more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from new_key import DEFAULT, KEY, kit_with_new_key
from written_run import write_run

_PROGRAM = """
import json, sys
from pathlib import Path
from kit.config.error import ConfigError
from tools.json_schema import json_schema
from tools.config_reference import reference_page
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.data.encoding import EncodedRow
from kit.data.token_rows import TokenRows
from kit.run_directory.history import read_run
from kit.runs.reproduction import _config
from kit.runs.rerun import write_config
from kit.stacks.stack import installed_stack
from kit.train.arguments import training_arguments
from kit.train.resume import differences, identity_of

DEMO, RUN, NEWER, KEY = Path("configs/training_config_demo.yaml"), Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def plan_of(settings):
    return order_batches(settings, TokenRows.of([EncodedRow([1, 2, 3], [-100, 2, 3], 1, 3)] * 4))

def identity(settings):
    return identity_of(settings, plan_of(settings), installed_stack(), "cpu", {"files": {}})

def refused(value):
    try:
        resolve(DEMO, {KEY: value})
    except ConfigError as exc:
        return str(exc)

def arguments(settings):
    return training_arguments(settings, plan_of(settings), "cpu")["adam_beta2"]

before, changed = resolve(DEMO), resolve(DEMO, {KEY: 0.5})
then = {name: value for name, value in identity(before.settings).items() if name != KEY}
run = read_run(RUN)
print(json.dumps({
    "settings": [before.settings.training.adam_beta2, changed.settings.training.adam_beta2],
    "origin": before.origins[KEY],
    "refused": refused(2.0),
    "schema": json_schema()["properties"]["training"]["properties"]["adam_beta2"],
    "reference": [line for line in reference_page().splitlines() if "`adam_beta2`" in line],
    "arguments": [arguments(before.settings), arguments(changed.settings)],
    "resumed": [differences(then, identity(each.settings)) for each in (before, changed)],
    "recorded": run.settings.training.adam_beta2,
    "reproduced": [_config(run)[0].severity, resolve(write_config(NEWER, run, {})).value(KEY)],
}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the kit with the new key says of itself and of a run that was recorded before."""
    pytest.importorskip("torch", reason="needs the libraries: make setup")
    folder = tmp_path_factory.mktemp("kit")
    environment = {**os.environ, "PYTHONPATH": str(kit_with_new_key(folder))}
    run = write_run(tmp_path_factory.mktemp("run"), done=1)
    command = [sys.executable, "-c", _PROGRAM, str(run), str(folder / "rerun"), KEY]
    answer = subprocess.run(
        command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    return dict(json.loads(answer.stdout))


def test_it_is_in_the_settings_and_configurations_that_do_not_name_it_have_its_default(told: dict[str, Any]) -> None:
    assert (told["settings"], told["origin"]) == ([DEFAULT, 0.5], "default")


def test_a_value_out_of_its_range_is_refused_in_words(told: dict[str, Any]) -> None:
    words = f"command line: {KEY} must be a number from 0 to 1; found 2.0; fix: the default is {DEFAULT}"
    assert told["refused"] == words


def test_editors_and_the_reference_page_know_it(told: dict[str, Any]) -> None:
    schema = {"description": "How slowly AdamW forgets.", "default": DEFAULT, "type": "number"}
    assert told["schema"] == {**schema, "minimum": 0.0, "maximum": 1.0}
    (row,) = told["reference"]
    assert (
        row == f"| `adam_beta2` | How slowly AdamW forgets. Elsewhere: `beta2`. | a number from 0 to 1 | `{DEFAULT}` |"
    )


def test_the_trainer_is_given_it(told: dict[str, Any]) -> None:
    assert told["arguments"] == [DEFAULT, 0.5]


def test_a_run_recorded_before_goes_on_unless_the_key_was_changed(told: dict[str, Any]) -> None:
    assert told["resumed"] == [{}, {KEY: [DEFAULT, 0.5]}]


def test_a_run_recorded_before_is_made_again_with_the_default_and_held_to_its_bits(told: dict[str, Any]) -> None:
    assert told["recorded"] == DEFAULT
    assert told["reproduced"] == ["ok", DEFAULT]
