"""A base that is not whole, or brings more than weights, is refused by every command before any of it is loaded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from small_base import change_json, change_weights, read_weights, tensor, write_weights
from small_run import CONFIG, overrides, read_receipt, run_training

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow
_REFERENCE = PROJECT_ROOT / ".venv-reference" / "bin" / "python"


class _Run:
    """What a pickle does when it is loaded: here it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(params=["current", pytest.param("reference", marks=pytest.mark.stacks)])
def python(request: pytest.FixtureRequest) -> str:
    if request.param == "current":
        return sys.executable
    if not _REFERENCE.exists():
        pytest.skip("there is no .venv-reference: make setup STACK=reference")
    return str(_REFERENCE)


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def _without_its_head(base: Path, _mark: Path) -> None:
    change_weights(base, lm_head__weight=None)


def _without_a_matrix(base: Path, _mark: Path) -> None:
    change_weights(base, model__layers__1__mlp__up_proj__weight=None)


def _with_an_adapter(base: Path, mark: Path) -> None:
    (base / "adapter_model.bin").write_bytes(pickle.dumps(_Run(mark)))
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 4, "target_modules": ["q_proj"]}
    change_json(base / "adapter_config.json", **config)


def _with_an_index_of_pickles(base: Path, mark: Path) -> None:
    tensors = read_weights(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    (base / "model-00001-of-00001.bin").write_bytes(pickle.dumps(_Run(mark)))
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-00001-of-00001.bin")}
    change_json(base / "model.safetensors.index.json", **index)


def _with_a_link_to_a_secret(base: Path, mark: Path) -> None:
    secret = mark.with_name("kaggle.json")
    secret.write_text('{"key": "very secret"}', encoding="utf-8")
    (base / "special_tokens_map.json").symlink_to(secret)


def _of_another_family(base: Path, _mark: Path) -> None:
    change_json(base / "config.json", model_type="phi3")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_without_its_head, "lacks lm_head.weight, which would be initialised at random"),
        (_without_a_matrix, "lacks model.layers.1.mlp.up_proj.weight"),
        (_with_an_adapter, "adapter_config.json: is in the base's folder"),
        (_with_an_index_of_pickles, "only safetensors files in its own folder are read"),
        (_with_a_link_to_a_secret, "special_tokens_map.json: is a link to"),
        (_of_another_family, "model_type is 'phi3'; supported families are mistral, llama"),
    ],
)
def test_validate_and_train_refuse_it_alike_and_nothing_of_it_runs(
    base: Path, tmp_path: Path, python: str, spoil: Callable[[Path, Path], None], words: str
) -> None:
    mark = tmp_path / "mark"
    spoil(base, mark)
    changes: dict[str, object] = {"quantization__load_in_4bit": False}
    validate = [
        python,
        "scripts/kit",
        "validate",
        "--no-probe",
        str(CONFIG),
        *overrides(base, tmp_path / "out", **changes),
    ]
    validated = subprocess.run(validate, capture_output=True, text=True, check=False, cwd=PROJECT_ROOT)
    trained = run_training(base, tmp_path / "out", python=python, **changes)
    assert (validated.returncode, trained.returncode) == (1, 1), trained.stderr
    assert words in validated.stdout
    assert words in trained.stderr
    assert "Traceback" not in validated.stderr + trained.stderr
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_a_base_in_the_hubs_cache_is_judged_as_a_folder_is(
    base: Path, tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, commit = tmp_path / "hub" / "models--owner--small", "0" * 40
    for part in ("blobs", "refs", "snapshots"):
        (repository / part).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    change_weights(base, lm_head__weight=None)
    snapshot = Path(shutil.move(base, repository / "snapshots" / commit))
    for path in sorted(snapshot.iterdir()):
        path.rename(repository / "blobs" / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    done = run_training(Path("owner/small"), tmp_path / "out", python=python, quantization__load_in_4bit=False)
    assert done.returncode == 1
    assert "lacks lm_head.weight, which would be initialised at random" in done.stderr
    assert not (tmp_path / "out").exists()


_LOAD_UNJUDGED = """
import sys
sys.path[:0] = ["scripts", "tests"]
from pathlib import Path
from adapter_run import run_settings
from kit.model import usability as judge
from kit.modeling.model import load_base_model

judge.base_findings = lambda *_: []
load_base_model(run_settings(*map(Path, sys.argv[1:]), quantization__load_in_4bit=False), "cpu")
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lm_head__weight": None}, "transformers loaded it with missing keys: lm_head.weight"),
        ({"model__layers__9__mlp__up_proj__weight": ("F32", (1,), bytes(4))}, "loaded it with unexpected keys"),
    ],
)
def test_what_transformers_reports_as_it_loads_counts_even_where_the_files_passed(
    base: Path, tmp_path: Path, python: str, change: dict[str, Any], words: str
) -> None:
    """transformers only logs it, at a level that is off."""
    change_weights(base, **change)
    command = [python, "-W", "ignore", "-c", _LOAD_UNJUDGED, str(base), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT_ROOT)
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]


def test_pickles_and_code_beside_a_whole_base_are_left_alone(base: Path, tmp_path: Path, python: str) -> None:
    """As a whole download of the hub's repository leaves a folder."""
    mark = tmp_path / "mark"
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt"):
        (base / name).write_bytes(pickle.dumps(_Run(mark)))
    (base / "modeling_own.py").write_text(f"import os; os.mkdir({str(mark)!r})", encoding="utf-8")
    done = run_training(base, tmp_path / "out", python=python, quantization__load_in_4bit=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()
    base_files = read_receipt(tmp_path / "out")["base_model"]
    assert isinstance(base_files, dict)
    assert not {"pytorch_model.bin", "modeling_own.py"} & set(base_files["files"])


def test_a_run_names_its_base_and_not_where_it_was_read(base: Path, tmp_path: Path, python: str) -> None:
    done = run_training(base, tmp_path / "out", python=python, quantization__load_in_4bit=False)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out/adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(base)


def test_a_padding_token_beyond_the_embedding_is_not_padded_with(base: Path, tmp_path: Path, python: str) -> None:
    """It ended in an IndexError in the first padded micro-batch, and on a GPU in the device's own assertion."""
    tokenizer = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    beyond = max(token["id"] for token in tokenizer["added_tokens"]) + 1_000
    more = {"id": beyond, "content": "[PAD]", "single_word": False, "lstrip": False, "rstrip": False}
    tokenizer["added_tokens"].append({**more, "normalized": False, "special": True})
    (base / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    change_json(base / "tokenizer_config.json", pad_token="[PAD]")  # noqa: S106 - a token, no secret
    done = run_training(base, tmp_path / "out", python=python, quantization__load_in_4bit=False)
    assert done.returncode == 0, done.stderr


def test_rows_with_a_token_beyond_the_embedding_are_named(base: Path, tmp_path: Path) -> None:
    vocabulary = json.loads((base / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    weights = read_weights(base / "model.safetensors")
    hidden = weights["lm_head.weight"][1][1]
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        weights[name] = tensor((vocabulary - 140, hidden), "F32")
    write_weights(base, weights)
    change_json(base / "config.json", vocab_size=vocabulary - 140)
    done = run_training(base, tmp_path / "out", python=sys.executable, quantization__load_in_4bit=False)
    assert done.returncode == 1
    assert "has a token beyond" in done.stderr
    assert "train.jsonl:1" in done.stderr
