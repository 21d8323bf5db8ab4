from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.cli.interpreter import PROJECT_ROOT
from kit.config import schema
from kit.config.error import ConfigError
from kit.config.resolve import resolve
from kit.config.yaml_writer import annotated_yaml

BAD_CONFIGS = sorted((PROJECT_ROOT / "tests" / "fixtures" / "bad_configs").rglob("*.yaml"))
MINIMAL = """\
model: {model_name_or_path: m}
lora:
  r: 8
  lora_alpha: 16
data: {train_file: t}
training: {run_name: n, learning_rate: 1}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def _messages(path: Path, overrides: Any = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(path, overrides)
    return str(caught.value).splitlines()


def test_the_corpus_of_bad_configs_is_complete() -> None:
    assert len(BAD_CONFIGS) == 34


@pytest.mark.parametrize("path", BAD_CONFIGS, ids=lambda path: path.stem)
def test_a_bad_config_is_refused_with_the_message_it_expects(path: Path) -> None:
    expected = re.findall(r"^# expect: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert expected
    said = _messages(path)
    for words in expected:
        assert any(words in line for line in said), f"{words!r} is not in:\n" + "\n".join(said)
    assert all("; fix: " in line for line in said)


def test_values_come_from_the_command_line_before_the_file_before_the_default(minimal: Path) -> None:
    resolved = resolve(minimal, ["lora.r=32"])
    assert (resolved.settings.lora.r, resolved.origins["lora.r"]) == (32, "command line")
    assert (resolved.settings.lora.lora_alpha, resolved.origins["lora.lora_alpha"]) == (16, f"{minimal}:4")
    assert (resolved.settings.lora.lora_dropout, resolved.origins["lora.lora_dropout"]) == (0.05, "default")
    assert resolved.where("lora.lora_dropout") == f"{minimal} (default)"


def test_every_key_is_there_in_the_schemas_order(minimal: Path) -> None:
    resolved = resolve(minimal)
    assert [f"{section}.{key}" for section, body in resolved.values.items() for key in body] == list(schema.keys())
    assert list(resolved.origins) == list(schema.keys())


def test_a_whole_number_becomes_a_float_where_the_key_is_one(minimal: Path) -> None:
    assert type(resolve(minimal).settings.training.learning_rate) is float


def test_the_last_override_of_a_key_counts(minimal: Path) -> None:
    assert resolve(minimal, ["lora.r=1", "lora.r=2"]).settings.lora.r == 2


def test_an_override_may_bring_a_section_the_file_lacks(minimal: Path) -> None:
    assert resolve(minimal, ["wandb.project=p"]).settings.wandb.project == "p"


def test_an_override_mends_a_wrong_value_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL.replace("r: 8", "r: 0"), encoding="utf-8")
    assert resolve(path, ["lora.r=8"]).settings.lora.r == 8


def test_overrides_may_be_a_mapping_of_paths_or_of_sections(minimal: Path) -> None:
    resolved = resolve(minimal, {"lora.r": 4, "training": {"learning_rate": 1e-4, "max_steps": 3}})
    assert (resolved.settings.lora.r, resolved.settings.training.learning_rate) == (4, 1e-4)
    assert resolve(minimal, {"lora.target_modules": ("q_proj",)}).settings.lora.target_modules == ("q_proj",)


def test_text_in_a_mapping_is_not_parsed(minimal: Path) -> None:
    assert "found the text '32'" in _messages(minimal, {"lora.r": "32"})[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lora.r", "'lora.r' is not an override: it has no '='"),
        ("=3", "'=3' has no key before the '='"),
        ("lora.r=", "lora.r has no value; fix: write lora.r=value, or lora.r=null for none"),
        ("lora.r\n\x1b[2J=", r"lora.r\n\x1b[2J has no value; fix: write lora.r\n\x1b[2J=value"),
        ("lora=3", "lora is a section, not a key; fix: name a key in it, such as lora.r=…"),
        ("lora.r=null", "lora.r must be an integer from 1 to 1024; found nothing (null)"),
        ("lora.r={a: 1}", "lora.r must be an integer from 1 to 1024; found a section of keys"),
        ("lora.target_modules=q_proj", "lora.target_modules must be a non-empty list"),
        ("lora.target_modules=[q_proj", "command line, lora.target_modules: is not valid YAML"),
        (
            "learning_rate=1e-4",
            "learning_rate is not a configuration key; fix: did you mean training.learning_rate?",
        ),
        ("lr=1e-4", "did you mean training.learning_rate?"),
        ("lora.rank=3", "did you mean lora.r?"),
        ("lora.alhpa=3", "did you mean lora.lora_alpha?"),  # a slip in the name others have for it
        (
            "lora.learning_rate=1",
            "lora.learning_rate is not a configuration key; fix: did you mean training.learning",
        ),
        ("lora.r.x=3", "lora.r.x is not a configuration key"),
        ("trainin.bf16=true", "trainin.bf16 is not a configuration key; fix: did you mean training.bf16?"),
        ("zzz.qqq=1", "zzz.qqq is not a configuration key; fix: delete it"),
        ("training.learning_rate=1" + "0" * 5000, "found the text"),
    ],
)
def test_a_bad_override_is_refused(minimal: Path, override: str, words: str) -> None:
    said = _messages(minimal, [override])
    assert len(said) == 1
    assert said[0].startswith("command line")
    assert words in said[0]


@pytest.mark.parametrize(("override", "code"), [("lora.r", 2), ("lora.r=", 2), ("lora.r=0", 1), ("lora.x=0", 1)])
def test_a_malformed_override_is_wrong_use_and_a_wrong_value_a_failed_check(
    minimal: Path, override: str, code: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(minimal, [override])
    assert caught.value.exit_code == code


def test_problems_of_file_and_command_line_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL.replace("r: 8", "r: 0"), encoding="utf-8")
    said = _messages(path, ["training.bf16=yes", "nonsense"])
    assert len(said) == 3


def test_the_printed_configuration_resolves_to_itself(minimal: Path, tmp_path: Path) -> None:
    first = resolve(minimal, ["data.val_file=a: b #c.jsonl", "wandb.project=yes", "training.learning_rate=1e-5"])
    second = tmp_path / "again.yaml"
    second.write_text(annotated_yaml(first.values, first.origins), encoding="utf-8")
    assert resolve(second).values == first.values
    assert "default" not in resolve(second).origins.values()


def test_a_configuration_with_changes_has_them_and_their_origins_in_both_its_forms(minimal: Path) -> None:
    first = resolve(minimal)
    changes = {"lora.target_modules": ["q_proj"], "training.padding_free": "auto", "training.seed": 1}
    second = first.with_changes(changes, dict.fromkeys(changes, "a test"))
    assert {key: second.value(key) for key in changes} == changes
    assert (second.settings.lora.target_modules, second.settings.training.padding_free) == (("q_proj",), False)
    assert {key for key, origin in second.origins.items() if origin == "a test"} == set(changes)
    assert first == resolve(minimal)


def test_resolving_imports_no_machine_learning_library(minimal: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kit.config.resolve import resolve; import kit.checks.rules\n"
        f"resolve(Path({str(minimal)!r}))\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'peft', 'trl', 'wandb') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT / "scripts",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout.strip() == "[]"


_WORDS = st.sampled_from([*schema.SCHEMA, *(key.split(".")[1] for key in schema.keys()), "x", "<<", "2e-4", "null"])  # noqa: SIM118
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([2**70, "\ud800", "&a"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
_FUZZ = settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@_FUZZ
@given(raw=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_no_file_content_raises_anything_else(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(raw)
    with contextlib.suppress(ConfigError):
        resolve(path)


_PIECES = [
    *MINIMAL.splitlines(keepends=True),
    *("  r: ", "[", "{", "}", "&a ", "*a", "!t ", "\t", "- ", "? ", ": ", "|\n", ">", "'", '"', "---\n", "...\n"),
    *("%YAML 1.1\n", "%TAG ! x\n", "<<: ", "\n", "  ", "1", "\x85", "\u2028", "\ufeff", "#", ","),
]


@_FUZZ
@given(pieces=st.lists(st.sampled_from(_PIECES), max_size=25))
def test_no_mangled_yaml_raises_anything_else(tmp_path: Path, pieces: list[str]) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_text("".join(pieces), encoding="utf-8")
    with contextlib.suppress(ConfigError):
        resolve(path)


_PAIRS = st.tuples(st.sampled_from(list(schema.keys())), st.text(max_size=12)).map("=".join)


@_FUZZ
@given(overrides=st.lists(st.text(max_size=20) | _PAIRS, max_size=4))
def test_no_override_raises_anything_else(minimal: Path, overrides: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        resolve(minimal, overrides)


@_FUZZ
@given(overrides=st.dictionaries(_WORDS | st.sampled_from(list(schema.keys())), _VALUES, max_size=5))
def test_no_mapping_of_overrides_raises_anything_else(minimal: Path, overrides: dict[str, Any]) -> None:
    try:
        resolve(minimal, overrides)
    except ConfigError as exc:
        str(exc).encode("utf-8")  # and every error can be printed


def test_what_a_terminal_would_obey_is_escaped(minimal: Path) -> None:
    assert _messages(minimal, ["\x1b[31m\udcff=1"])[0].startswith(
        "command line: \\x1b[31m\\udcff is not a configuration key"
    )


@pytest.mark.parametrize(
    "override",
    [
        "wandb.project=hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
        "wandb.entity=" + "0123456789abcdef" * 2 + "01234567",
        "model.model_name_or_path=https://me:p4ss-w0rd@host/model",
        "data.train_file=known-t0ken",
    ],
)
def test_a_value_that_is_a_token_is_refused_without_being_shown(
    override: str, minimal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "known-t0ken")
    with pytest.raises(ConfigError) as raised:
        resolve(minimal, [override])
    (finding,) = raised.value.findings
    key, _, value = override.partition("=")
    assert (finding.id, finding.where) == ("config.secret", "command line")
    assert key in finding.message
    assert value not in str(raised.value)


def test_a_revision_is_no_token(minimal: Path) -> None:
    revision = "9ab6f1e2" * 5
    assert resolve(minimal, [f"model.revision={revision}"]).settings.model.revision == revision


@pytest.mark.parametrize(
    ("overrides", "revision", "origin"),
    [
        ([], "abc", "file"),
        (["model.model_name_or_path=owner/name"], "abc", "file"),
        (["model.model_name_or_path=owner/other"], None, "default"),
        (["model.model_name_or_path=/models/other"], None, "default"),
        (["model.model_name_or_path=owner/other", "model.revision=def"], "def", "command line"),
        (["model.revision=def", "model.model_name_or_path=owner/other"], "def", "command line"),
        (["model.revision=null"], None, "command line"),
        ({"model": {"model_name_or_path": "owner/other"}}, None, "default"),
    ],
)
def test_a_files_revision_goes_with_the_model_it_names(
    tmp_path: Path, overrides: Any, revision: str | None, origin: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: {model_name_or_path: owner/name, revision: abc}\nlora: {r: 8, lora_alpha: 16}\n"
        "data: {train_file: a.jsonl}\ntraining: {run_name: a, num_train_epochs: 1, learning_rate: 1e-4}\n",
        encoding="utf-8",
    )
    resolved = resolve(path, overrides)
    assert resolved.settings.model.revision == revision
    assert resolved.origins["model.revision"].startswith(str(path) if origin == "file" else origin)
