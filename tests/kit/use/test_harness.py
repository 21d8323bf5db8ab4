"""The harness is a library: where it is missing the command that installs it is said, before anything is loaded."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pytest

from kit.run_directory.history import RunError
from kit.stacks.stack import installed_stack
from kit.use.harness import VERSION, HarnessTasks, require_harness, run_tasks
from kit.use.loading import add_run_arguments, choose, load

IS_THERE = importlib.util.find_spec("lm_eval") is not None


@pytest.mark.skipif(IS_THERE, reason="lm-evaluation-harness is installed here")
def test_a_harness_that_is_missing_comes_with_the_command_that_installs_it() -> None:
    with pytest.raises(RunError, match=f"not installed; py -m pip install lm_eval=={VERSION}"):
        require_harness("py")


@pytest.mark.skipif(not IS_THERE, reason="lm-evaluation-harness is not installed; it is no part of the locks")
def test_a_task_of_ones_own_is_run_with_and_without_the_adapter(adapter_run: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "a", "right": 1}\n{"q": "b", "right": 0}\n', encoding="utf-8")
    (tmp_path / "choose.yaml").write_text(
        f"task: choose_one\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{right}}'\n"
        "doc_to_choice: ['x', 'y']\nmetric_list: [{metric: acc}]\n",
        encoding="utf-8",
    )
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    loaded = load(choose(parser.parse_args([str(adapter_run), "--cpu"]), installed_stack()))
    for adapter in (True, False):
        found = run_tasks(loaded, HarnessTasks(("choose_one",), tmp_path), adapter=adapter, batch_size=2)
        assert 0 <= found["choose_one"]["acc"] <= 1
    with pytest.raises(RunError, match="has no task 'nope'"):
        run_tasks(loaded, HarnessTasks(("nope",), tmp_path), adapter=True, batch_size=2)
