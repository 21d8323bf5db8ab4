"""What no line of the kit may do, read from its own syntax; docs/SECURITY.md says why, and what holds the rest."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from kit.cli.interpreter import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = sorted(path for folder in ("scripts", "bench", "tools") for path in (PROJECT_ROOT / folder).rglob("*.py"))
TREES = {path.relative_to(PROJECT_ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
# Each of these runs, or can be made to run, what it reads.
UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "tarfile"}
UNSAFE_CALLS = {"eval", "exec", "os.system", "os.popen", "torch.load", "np.load"}
UNSAFE_CALLS |= {"yaml.load", "yaml.full_load", "yaml.unsafe_load"}
DOCUMENT = (PROJECT_ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield name, node, ast.unparse(node.func)


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_nothing_is_read_in_a_format_that_can_run_code() -> None:
    assert [name for name, tree in TREES.items() if UNSAFE_MODULES & set(imported(tree))] == []
    assert [f"{name}:{node.lineno}" for name, node, called in calls() if called in UNSAFE_CALLS] == []


def test_no_shell_reads_a_command_that_was_put_together() -> None:
    shells = [
        f"{name}:{node.lineno}"
        for name, node, _ in calls()
        for keyword in node.keywords
        if keyword.arg == "shell" and ast.unparse(keyword.value) != "False"
    ]
    assert shells == []


def test_code_from_a_models_repository_is_never_run() -> None:
    said = [
        (name, ast.unparse(keyword.value))
        for name, node, _ in calls()
        for keyword in node.keywords
        if keyword.arg == "trust_remote_code"
    ]
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                said += [(name, ast.unparse(value)) for key, value in pairs if _is(key, "trust_remote_code")]
    assert said
    assert {value for _, value in said} == {"False"}


def test_weights_of_a_base_are_safetensors_alone() -> None:
    options = (PROJECT_ROOT / "scripts/kit/modeling/model.py").read_text(encoding="utf-8")
    assert '"use_safetensors": True' in options
    loaded = [(name, node) for name, node, called in calls() if called.endswith("CausalLM.from_pretrained")]
    for name, node in loaded:
        said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_models = name.startswith("scripts/kit/stacks/") and said.get(None) == "options"
        assert is_models or said.get("use_safetensors") == "True"
    assert len(loaded) == 3


def _is(key: ast.expr | None, text: str) -> bool:
    return isinstance(key, ast.Constant) and key.value == text


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::\w+)?`", DOCUMENT))))
def test_every_test_that_the_page_names_is_there(place: str) -> None:
    text = (PROJECT_ROOT / place).read_text(encoding="utf-8")
    for name in re.findall(rf"`{re.escape(place)}::(\w+)`", DOCUMENT):
        assert f"def {name}(" in text
