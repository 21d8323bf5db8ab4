from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import plan
from kit.config.resolve import resolve

if TYPE_CHECKING:
    from pathlib import Path

CONFIGS = sorted((PROJECT_ROOT / "configs").rglob("*.y*ml"))
MACHINES = sorted((PROJECT_ROOT / "tests" / "fixtures" / "machines").glob("*.json"))
H100_PATH = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
H100 = str(H100_PATH)
DEMO = str(PROJECT_ROOT / "configs" / "training_config_demo.yaml")
ON_H100 = ["--from", str(PROJECT_ROOT / "tests" / "fixtures" / "machines" / "h100_80gb.json")]
SHAPE = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": True,
}


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    call(plan, [*arguments, "--json"])
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_planned_on_every_recorded_machine(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE), encoding="utf-8")
    demo = ["--model-config", str(tmp_path / "config.json")] if config.stem.endswith("demo") else []
    assert len(MACHINES) > 10
    for machine in MACHINES:
        found = _json(capsys, str(config), "--from", str(machine), "--rows", "100", *demo)
        assert found["schema_version"] == 1
        assert isinstance(found["terms"], dict)
        assert found["peak_memory_bytes"] == sum(found["terms"].values())
        assert found["verdict"] in {"fits", "tight", "does not fit", "unknown"}
        assert {"tokens", "steps", "seconds", "suggestions"} <= set(found)


def test_planning_all_configs_on_all_machines_imports_no_torch_and_no_transformers(tmp_path: Path) -> None:
    """Importing torch alone takes longer than a second; without it, a plan is arithmetic on a few numbers."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE), encoding="utf-8")
    code = (
        "import sys; from kit.cli.command import call; from kit.commands import plan\n"
        f"shape = ['--rows', '50', '--model-config', {str(tmp_path / 'config.json')!r}]\n"
        f"for config in {[str(path) for path in CONFIGS]!r}:\n"
        f"    for machine in {[str(path) for path in MACHINES]!r}:\n"
        "        assert call(plan, [config, '--from', machine, *shape]) in (0, 1)\n"
        f"call(plan, [{DEMO!r}, *shape[2:]])\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'peft', 'trl'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    environment = {"PYTHONPATH": str(PROJECT_ROOT / "scripts"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: ") == len(CONFIGS) * len(MACHINES) + 1


def test_the_plan_shows_its_terms_its_arithmetic_and_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(plan, [H100, *ON_H100, "--rows", "15000"]) == 0
    out = capsys.readouterr().out
    assert "frozen linear layers" in out
    assert "GFLOP per token" in out
    assert "unchanged" in out or "gradient_checkpointing=false" in out
    assert out.splitlines()[-1].startswith("next: make ")


@pytest.mark.parametrize(
    ("machine", "meaning", "parts"),
    [
        ("h100_80gb", "nvidia-smi shows more", {"tensors", "cuBLAS workspaces", "CUDA context", "time"}),
        ("m4_32gb", "", {"tensors", "time"}),
        ("linux_cpu", "resident", {"tensors", "libraries, freed blocks", "time"}),
    ],
)
def test_the_plan_says_what_its_figure_is_and_where_its_parts_come_from(
    machine: str, meaning: str, parts: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [H100, "--from", str(MACHINES[0].parent / f"{machine}.json"), "--rows", "100"]
    found = _json(capsys, *arguments)
    assert meaning in str(found["meaning"])
    assert isinstance(found["sources"], dict)
    assert set(found["sources"]) == parts
    call(plan, arguments)
    out = capsys.readouterr().out
    assert meaning in out
    assert all(origin in out for origin in found["sources"].values())


def test_a_plan_that_does_not_fit_exits_1_and_one_that_is_tight_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(plan, [H100, "training.gradient_checkpointing=false", *ON_H100, "--rows", "10"]) == 1
    assert "does not fit" in capsys.readouterr().out
    assert call(plan, [H100, "training.per_device_train_batch_size=30", *ON_H100, "--rows", "10"]) == 0
    assert "tight" in capsys.readouterr().out


def test_the_other_stack_can_be_planned_for(capsys: pytest.CaptureFixture[str]) -> None:
    current = _json(capsys, H100, *ON_H100, "--rows", "10", "--stack", "current")
    reference = _json(capsys, H100, *ON_H100, "--rows", "10", "--stack", "reference")
    assert current["peak_memory_bytes"] != reference["peak_memory_bytes"]
    assert current["moment"] == "feed-forward"
    assert reference["moment"] == "loss"


def test_suggestions_of_the_same_mathematics_keep_the_batch_and_fit(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, H100, *ON_H100, "--rows", "1000")
    suggestions = found["suggestions"]
    assert isinstance(suggestions, list)
    same = [item for item in suggestions if item["same_mathematics"]]
    other = [item for item in suggestions if not item["same_mathematics"]]
    assert same
    assert {key for item in other for key in item["overrides"]} == {"lora.lora_dropout", "training.max_seq_length"}
    assert [item["seconds"][1] for item in same] == sorted(item["seconds"][1] for item in same)
    for item in same:
        assert item["verdict"] == "fits"
        known = {key: value for key, value in item["overrides"].items() if "every_n_layers" not in key}
        assert (
            resolve(PROJECT_ROOT / "configs" / "training_config_h100.yaml", known).settings.effective_batch_size == 16
        )


def test_apply_writes_a_valid_configuration_and_replaces_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faster.yaml"
    arguments = [H100, "lora.r=32", "lora.lora_alpha=64", *ON_H100, "--rows", "1000", "--apply", str(path)]
    assert call(plan, arguments) == 0
    assert f"make validate CONFIG={path}" in capsys.readouterr().err
    settings = resolve(path).settings
    assert settings.effective_batch_size == 16
    assert settings.lora.r == 32
    assert settings.training.gradient_checkpointing is False
    written = path.read_text(encoding="utf-8")
    assert "plan, was true" in written
    assert call(plan, arguments) == 2
    assert "already exists" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == written


def test_levers_the_formulas_do_not_know_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, H100, "training.torch_compile=true", *ON_H100, "--rows", "10")
    assert found["not_planned"] == ["training.torch_compile"]


def test_another_models_config_is_planned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SHAPE), encoding="utf-8")
    found = _json(capsys, H100, *ON_H100, "--rows", "10", "--model-config", str(path))
    terms = found["terms"]
    assert isinstance(terms, dict)
    assert terms["embedding, head and norms"] == (128_256 * 2048 + 33 * 2048) * 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("[]", "is not a JSON object"),
        (json.dumps(SHAPE | {"hidden_size": "big"}), "hidden_size is 'big'"),
        (json.dumps(SHAPE | {"num_local_experts": 8}), "mixtures of experts are not supported"),
    ],
)
def test_a_model_config_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, words: str
) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert call(plan, [H100, *ON_H100, "--model-config", str(path)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([H100, "--from", "nowhere.json"], "nowhere.json"),
        (["nowhere.yaml"], "nowhere.yaml"),
        ([H100, "model.model_name_or_path=someone/else", *ON_H100], "someone/else"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert call(plan, arguments) == 2
    assert words in capsys.readouterr().err


def test_a_plan_for_no_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(plan, [H100, "--rows", "0"])
    assert "--rows: '0' is not an integer of at least 1" in capsys.readouterr().err
