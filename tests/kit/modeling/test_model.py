"""What a base is loaded with, asked of the code itself on either stack, with the libraries' loaders listening."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from small_base import write_base

_REFERENCE = PROJECT_ROOT / ".venv-reference" / "bin" / "python"
# Both hold for every platform; a Mac's device is the one that a library would choose wrongly.
_ASK = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import transformers
from kit.config.resolve import resolve
from kit.modeling import model as loading

asked = {}

def listen(name, answer):
    def from_pretrained(path, **options):
        asked["files"] = [entry.name for entry in Path(path).iterdir()]
        asked[name] = {key: repr(value) for key, value in options.items() if key != "quantization_config"}
        return answer
    return SimpleNamespace(from_pretrained=from_pretrained)

base = SimpleNamespace(config=SimpleNamespace(use_cache=True, tie_word_embeddings=False), modules=list)
transformers.AutoModelForCausalLM.from_pretrained = listen("model", (base, {})).from_pretrained
settings = resolve(Path("configs/training_config_m4.yaml"), [f"model.model_name_or_path={sys.argv[1]}"]).settings
loading.load_base_model(settings, "m4")
asked["files"] = sorted(asked["files"])
print(json.dumps({**asked, "use_cache": base.config.use_cache}))
"""

pytestmark = pytest.mark.slow  # imports torch and transformers, in a process of its own


@pytest.fixture(scope="module", params=["current", pytest.param("reference", marks=pytest.mark.stacks)])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    base = write_base(tmp_path_factory.mktemp("base"), shards=3)
    for stranger in ("pytorch_model.bin", "tokenizer.json", "modeling_own.py", "consolidated.safetensors"):
        (base / stranger).write_text("{}", encoding="utf-8")
    python = Path(sys.executable) if request.param == "current" else _REFERENCE
    if not python.exists():
        pytest.skip("there is no .venv-reference: make setup STACK=reference")
    command = [str(python), "-W", "ignore", "-c", f"import sys; sys.path.insert(0, 'scripts')\n{_ASK}", str(base)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_only_safetensors_are_read(asked: dict[str, dict[str, str]]) -> None:
    """torch below 2.6 can be made to run code by a pickled checkpoint (CVE-2025-32434)."""
    assert asked["model"]["use_safetensors"] == "True"


def test_no_code_of_the_models_folder_is_run(asked: dict[str, dict[str, str]]) -> None:
    assert asked["model"]["trust_remote_code"] == "False"


def test_transformers_sees_what_was_judged_and_nothing_else(asked: dict[str, object]) -> None:
    shards = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    assert asked["files"] == ["config.json", *shards, "model.safetensors.index.json"]


def test_the_device_is_named_because_a_quantised_model_goes_to_the_cpu_otherwise(
    asked: dict[str, dict[str, str]],
) -> None:
    assert asked["model"]["device_map"] == "{'': 'mps'}"


def test_no_cache_is_kept_while_training(asked: dict[str, object]) -> None:
    """With gradient checkpointing it is an exception in eager attention, and worse losses in FlashAttention 2."""
    assert asked["use_cache"] is False
