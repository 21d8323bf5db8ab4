"""Every command on a terminal, with a run, rows, a model, answers and names that try to take the terminal over.

No order to a terminal may reach it but the kit's own colours and bars; no name may begin a line; nothing is coloured by
what it says itself. Each order in here is followed by FORGED, which must stay in the middle of a line.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

from chat_folders import MISTRAL, write_chat_folder
from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import COMMANDS, module_of
from terminal import END, INTERRUPT, Terminal
from torture.forked import end_threads
from torture.hostile_text import EVIL, EVIL_NAME, faults_on

_YAML = '"\\e[2JFORGED\\e]0;t\\aFORGED\\x9b2JFORGED\\u202EFORGED\\rFORGED\\nFORGED\\e[32mFORGED"'
# What is driven with a hostile argument only, and why.
_SHOWS_NO_TEXT_OF_OTHERS = {
    "completion": "the commands' own options",
    "image": "the engine's words, which are the machine's",
}
_COMMANDS = sorted(COMMANDS)

World = dict[str, str]


def _poisoned(value: Any) -> Any:
    """Put hostile text into every text of JSON data, and under a hostile key."""
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, list):
        return [_poisoned(item) for item in value]
    if isinstance(value, dict):
        return {**{key: _poisoned(item) for key, item in value.items()}, EVIL: EVIL}
    return value


@pytest.fixture(scope="module")
def world(adapter_run: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make everything that a stranger could have made."""
    folder = tmp_path_factory.mktemp("world")
    run = folder / "outputs" / f"run{EVIL_NAME}"
    shutil.copytree(adapter_run, run)
    receipt = json.loads((run / "run.json").read_text(encoding="utf-8"))
    data = {"path": f"gone{EVIL_NAME}.jsonl", "sha256": "f" * 64, "rows": 40, "tokens": 400, "trainable_tokens": 9}
    shown = {
        "started_at": "2024-05-01T14:29:26+00:00", "argv": ["a"], "error": "OSError", "stack": "current", "python": "3",
        "packages": {"torch": "2"}, "locks": {"a.txt": "0"}, "git_revision": "1", "platform": "cpu", "data": [data],
        "machine": {"system": "Linux", "arch": "x", "cpu_model": "c", "nvidia": {"gpus": [{"name": "g"}]}},
        "adapter_files": {"adapter_model.safetensors": "0" * 64}, "base_model": {"name": "b", "files": {"a": "0" * 64}},
        "checkpoints": [{"name": "checkpoint-1", "manifest_sha256": "0" * 64}],
        "stalls": [{"what": "w", "rows": ["r"]}],
        "bad_losses": [{"kind": "zero", "step": 1, "message": "m", "rows": ["r"]}], "steps": 2, "attention": "sdpa",
        "sessions": [{"end": "finished"}], "predicted": {"reason": "r"}, "left_out_of_adapter_config": ["l"],
    }  # fmt: skip
    facts = {**receipt, "run_name": EVIL, **_poisoned(shown), "data": [data]}
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    lines = [{"step": step, "loss": 1.0 / step, "seconds": step, "tokens": 9, "grad_norm": EVIL} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for name, changes in (
        ("live", {"state": "training", "steps": 9}),
        ("stopped", {"state": f"started{EVIL}"}),
        ("broken", {"config": _poisoned(receipt["config"])}),
    ):
        (folder / "outputs" / name).mkdir()
        text = json.dumps({**facts, **changes})
        (folder / "outputs" / name / "run.json").write_text(text, encoding="utf-8")
    (folder / "outputs" / f"no{EVIL_NAME}").mkdir()
    (folder / "outputs" / f"no{EVIL_NAME}" / "run.json").write_text(f"{{ {EVIL}", encoding="utf-8")
    turns = [{"role": "user", "content": f"a{EVIL}"}, {"role": "assistant", "content": f"b{EVIL}"}]
    good = {"messages": turns, EVIL: EVIL, "source": EVIL}
    bad = [
        {EVIL: EVIL},
        {"messages": [{"role": EVIL, "content": "x"}]},
        {"messages": [{**turns[0], "content": None, EVIL: 1}]},
    ]
    rows, mixed = folder / f"rows{EVIL_NAME}.jsonl", folder / f"mixed{EVIL_NAME}.jsonl"
    rows.write_text("".join(json.dumps(good) + "\n" for _ in range(3)), encoding="utf-8")
    mixed.write_text("".join(json.dumps(row) + "\n" for row in (good, *bad)) + EVIL.replace("\n", ""), encoding="utf-8")
    (folder / "rows.jsonl").write_text(rows.read_text(encoding="utf-8"), encoding="utf-8")
    short = {"messages": [{"role": role, "content": "a\x1b[2JFORGED"} for role in ("user", "assistant")]}
    (folder / "short.jsonl").write_text(3 * (json.dumps(short) + "\n"), encoding="utf-8")
    config = folder / f"config{EVIL_NAME}.yaml"
    text = (PROJECT_ROOT / "configs/training_config_demo.yaml").read_text(encoding="utf-8")
    config.write_text(f"{text}\n{_YAML}: {{{_YAML}: {_YAML}}}\n", encoding="utf-8")
    values = folder / "values.yaml"
    values.write_text(
        re.sub(r"(?m)^(  run_name|  report_to):.*", lambda key: f"{key[1]}: {_YAML}", text), encoding="utf-8"
    )
    model = folder / "model"
    model.mkdir()
    quoted = EVIL.replace("\\", "\\\\").replace("'", "")
    write_chat_folder(model, template=f"{{{{ raise_exception('{quoted}') }}}}{MISTRAL}", pad_token=EVIL)
    (model / "config.json").write_text(json.dumps({"model_type": EVIL, "architectures": [EVIL]}), encoding="utf-8")
    adapter = folder / f"adapter{EVIL_NAME}"
    shutil.copytree(run / "adapter", adapter)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(
        json.dumps({**settings, EVIL: EVIL, "task_type": EVIL}), encoding="utf-8"
    )
    record = folder / "record.json"
    record.write_text(json.dumps(_poisoned({"schema_version": 1, "machine": {"system": "Linux"}})), encoding="utf-8")
    return {
        "folder": str(folder), "run": str(run), "rows": str(rows), "mixed": str(mixed), "config": str(config),
        "values": str(values), "model": str(model), "adapter": str(adapter), "record": str(record),
        "demo": str(PROJECT_ROOT / "configs/training_config_demo.yaml"), "good": str(folder / "rows.jsonl"),
        "short": str(folder / "short.jsonl"),
        "out": str(folder / f"out{EVIL_NAME}"),
    }  # fmt: skip


# Every command, with what of the world it is given.
_DRIVEN: dict[str, list[list[str]]] = {
    "chat": [["{run}", "--cpu", "--prompt", "a{evil}", "--max-new-tokens", "3"], ["{out}"], ["broken"]],
    "detect": [[], ["--from", "{record}"], ["--from", "{out}"], ["--record", "{out}/x"]],
    "config": [["{config}"], ["{values}"], ["{out}"], ["{demo}", "data.train_file={rows}", "{evil}=1"]],
    "demo": [["training.run_name={evil}"], ["{evil}=1"]],
    "diff-run": [["{run}", "stopped"], ["{out}", "{run}"], ["{run}", "{run}"]],
    "evaluate": [
        ["{run}", "--cpu", "--data", "{short}", "--questions", "2", "--max-new-tokens", "3", "--out", "{out}.json"],
        ["{run}", "--cpu", "--data", "{mixed}"], ["{run}", "--cpu", "--adapter", "{adapter}"],
        ["{run}", "--data", "{out}"],
    ],
    "merge": [
        ["{run}", "--out", "{out}-merged", "--no-check"], ["{run}", "--adapter", "{adapter}", "--out", "{out}-2"],
        ["{run}", "--data", "{out}", "--out", "{out}-3"],
    ],
    "parity": [["--from", "{record}"], ["--from", "{out}"]],
    "plan": [
        ["{config}"], ["{demo}", "model.model_name_or_path={model}"], ["{demo}", "--model-config", "{record}"],
        ["{demo}", "--from", "{record}"], ["{demo}", "--model-config", "{out}"],
    ],
    "portable-adapter": [["{adapter}", "{out}-copy"], ["{out}", "{out}-copy2"]],
    "data": [
        ["{rows}", "--out", "{out}-data"], ["{mixed}", "--out", "{out}-data2"], ["{mixed}", "--audit"], ["{out}"],
        ["{rows}", "--out", "{out}-data"], ["{rows}", "--map", "user={evil}"],
    ],
    "report": [["{run}"], ["{out}"], ["broken"]],
    "reproduce": [["{run}", "--check-only"], ["{out}"], ["{run}", "{evil}=1"]],
    "runs": [[], ["--json"], ["--outputs", "{out}"]],
    "train": [
        ["{config}"], ["{demo}", "data.train_file={mixed}"], ["{demo}", "training.run_name={evil}"],
        ["{demo}", "model.model_name_or_path={model}", "data.train_file={good}"],
    ],
    "validate": [
        ["{config}"], ["{demo}", "model.model_name_or_path={model}", "data.train_file={good}"], ["--from", "{record}"],
    ],
    "validate-environment": [["--no-probe", "--config", "{config}"], ["--from", "{record}"]],
    "validate-config": [["{config}"], ["{values}"], ["{demo}", "data.train_file={rows}"]],
    "verify": [["{run}"], ["{run}", "--json"], ["{out}"]],
    "watch": [["{run}"], ["{run}", "--once"], ["stopped", "--once"], ["{out}"]],
}  # fmt: skip


def _begin(command: str, arguments: list[str], world: World, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Begin a command on a terminal in the hostile world."""
    from kit.data.chat_tokenizer import ChatTokenizer

    module = importlib.import_module(module_of(command))
    argv = [argument.format(**world, evil=EVIL) for argument in arguments]
    monkeypatch.chdir(world["folder"])
    monkeypatch.setattr(sys, "argv", [command, *argv])
    monkeypatch.setattr(ChatTokenizer, "decode", lambda _self, ids: EVIL.replace("\n", "") * len(ids))
    end_threads()
    hostile = {"CUDA_VISIBLE_DEVICES": EVIL, "HF_HUB_OFFLINE": "1", "COLUMNS": "1000", "PYTORCH_CUDA_ALLOC_CONF": EVIL}
    return Terminal(lambda: call(module, argv), **hostile)


def _drive(command: str, arguments: list[str], world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Run a command to its end; return what came to the terminal, and the exit code."""
    with _begin(command, arguments, world, monkeypatch) as terminal:
        code = terminal.exit_code()
    return terminal.text, code


def test_every_command_is_driven_or_named_with_the_reason() -> None:
    assert sorted([*_DRIVEN, *_SHOWS_NO_TEXT_OF_OTHERS]) == _COMMANDS


@pytest.mark.parametrize("command", _COMMANDS)
def test_an_argument_that_is_none_cannot_act_on_the_terminal(
    command: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, code = _drive(command, ["--no{evil}", *["a{evil}"] * 3], world, monkeypatch)
    assert code == 2
    assert faults_on(text) == []


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(command, arguments) for command, cases in _DRIVEN.items() for arguments in cases],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60],
)
def test_no_text_of_others_acts_on_the_terminal(
    command: str, arguments: list[str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, _code = _drive(command, arguments, world, monkeypatch)
    assert faults_on(text) == []
    assert text.strip()
    assert "Traceback" not in text


def test_a_verdict_cannot_be_painted_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    text, code = _drive("verify", ["{run}"], world, monkeypatch)
    assert code == 1
    assert re.search(r"error.*adapter_model\.safetensors", text)
    assert "files differ from what the run wrote" in text.splitlines()[-1]


def test_a_view_that_is_redrawn_moves_the_cursor_itself_and_lets_no_name_do_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _begin("watch", ["live"], world, monkeypatch) as terminal:
        terminal.wait_for("Ctrl-C detaches")
        terminal.wait_for("Ctrl-C detaches")
        terminal.type(INTERRUPT)
        assert terminal.exit_code() == 130
    assert "\x1b[1A" in terminal.text
    assert faults_on(terminal.text, redrawn=True) == []


def test_a_model_cannot_act_on_the_terminal_with_its_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with _begin("chat", ["{run}", "--cpu", "--max-new-tokens", "2"], world, monkeypatch) as terminal:
        for typed in ("a", "/base", "/again", "/x", END):
            terminal.wait_for("you> ")
            terminal.type(typed if typed == END else f"{typed}\n")
        assert terminal.exit_code() == 0
    assert terminal.text.count(r"\u001b[2J\u001b[HFORGED") >= 4
    assert faults_on(re.sub(r"\x1b\[\?2004[hl]", "", terminal.text)) == []  # readline's own


def test_what_is_left_in_files_is_true_and_cannot_break_out_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = world["out"]
    assert _drive("data", ["{rows}", "--out", "{out}-files"], world, monkeypatch)[1] == 0
    assert _drive("merge", ["{run}", "--out", "{out}-model", "--no-check"], world, monkeypatch)[1] == 0
    assert _drive("report", ["{run}"], world, monkeypatch)[1] == 0
    files = [f"{out}-files/data_card.md", f"{out}-model/README.md", f"{world['run']}/report.html"]
    for text in (Path(name).read_text(encoding="utf-8") for name in files):
        assert "FORGED" in text
        assert [fault for fault in faults_on(text) if "line of its own" not in fault or "<html" not in text] == []
    row = json.loads(Path(f"{out}-files/train.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert row["messages"][0]["content"] == f"a{EVIL}"
