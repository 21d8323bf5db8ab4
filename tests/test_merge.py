"""Merging a run from the command line: whole or not at all."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="needs the libraries: make setup")

from safetensors.torch import load_file, save_file

from kit.cli.command import call
from kit.cli.foreground import TerminatedError
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import merge
from kit.files.own_files import FolderClaim

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = PROJECT_ROOT / ".venv-reference" / "bin" / "python"


@pytest.fixture
def run(adapter_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(adapter_run, tmp_path / "demo")
    return tmp_path / "demo"


def test_a_merge_is_compared_and_says_by_how_much(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(merge, [str(run), "--cpu"]) == 0
    merged = run / "merged"
    assert {path.name for path in merged.iterdir()} >= {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "merge.json",
    }  # fmt: skip
    facts = json.loads((merged / "merge.json").read_text(encoding="utf-8"))
    found = facts["comparison"]
    assert (facts["dtype"], facts["merged_matrices"], found["rows"]) == ("bfloat16", 28, 4)
    assert 0 < found["difference"] < found["tolerance"] == 2 * found["floor"] < found["adapter_effect"]
    weights = facts["weights"]
    assert (weights["matrices"], weights["others"], weights["wrong"]) == (28, 11, [])
    assert weights["kept"] == pytest.approx(1, abs=0.01)
    output = capsys.readouterr().out
    assert "weights: 28 matrices equal the base's plus peft's update, 11 other tensors equal the base's" in output
    assert f"the merged model differs by {found['difference']:.2%} of their size (peft's in-memory merge by" in output
    assert "merged" in output.splitlines()[-2]
    card = (merged / "README.md").read_text(encoding="utf-8")
    for line in output.splitlines()[:2]:
        assert f"- {line}" in card
    assert "trained on the unquantised base" in card


def test_the_merged_model_ends_where_its_template_ends_a_turn(run: Path, tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = "{% for message in messages %}{{ message['content'] + unk_token }}\n{% endfor %}"
    (base / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    receipt = json.loads((run / "run.json").read_text(encoding="utf-8"))
    receipt["config"]["model"]["model_name_or_path"] = str(base)
    (run / "run.json").write_text(json.dumps(receipt), encoding="utf-8")
    assert call(merge, [str(run), "--cpu", "--no-check"]) == 0
    written = json.loads((run / "merged/generation_config.json").read_text(encoding="utf-8"))
    assert written["eos_token_id"] == [2, 0]


def test_float32_merges_exactly_but_for_the_order_of_sums(run: Path) -> None:
    assert call(merge, [str(run), "--cpu", "--dtype", "float32"]) == 0
    found = json.loads((run / "merged/merge.json").read_text(encoding="utf-8"))["comparison"]
    assert found["difference"] < found["tolerance"] < 1e-5


@pytest.mark.parametrize("factor", [0.0, 0.98, 1.02, 1.2])
def test_a_merge_that_adds_something_else_is_not_kept(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], factor: float
) -> None:
    from kit.use import merging

    monkeypatch.setattr(
        merging.LoraPair, "delta", lambda pair: (pair.b.float() @ pair.a.float()) * pair.scaling * factor
    )
    assert call(merge, [str(run), "--cpu"]) == 1
    error = capsys.readouterr().err
    assert f"values differ from base + adapter; {factor:.2f} of the adapter's change is kept" in error
    assert "and 23 more" in error
    assert "was not kept" in error
    assert sorted(path.name for path in run.iterdir()) == ["adapter", "run.json", "val.jsonl"]


def test_a_folder_that_loads_as_another_model_is_not_kept(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kit.use import merging

    def another(name: str, revision: str | None, folder: Path, dtype: str, **options: Any) -> None:
        copy_the_rest(name, revision, folder, dtype, **options)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}), encoding="utf-8")

    copy_the_rest = merging.copy_the_rest
    monkeypatch.setattr(merging, "copy_the_rest", another)
    assert call(merge, [str(run), "--cpu"]) == 1
    output = capsys.readouterr()
    assert "weights: 28 matrices equal the base's plus peft's update" in output.out
    assert "was not kept" in output.err
    assert not (run / "merged").exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_as_deep_as_the_real_one_is_merged(
    tmp_path: Path, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from adapter_run import make_run
    from deep_base import write_deep_base

    # 32 layers of 7 matrices, in bfloat16: rounding alone changes the logits of such a model by 7 % and more.
    base = write_deep_base(tmp_path / "base")
    run = make_run(base, tmp_path / "run", quantization__load_in_4bit=False, model__torch_dtype="bfloat16")
    shrink(run / "adapter/adapter_model.safetensors", 0.06)
    assert call(merge, [str(run), "--cpu", "--dtype", dtype]) == 0, capsys.readouterr().err
    facts = json.loads((run / "merged/merge.json").read_text(encoding="utf-8"))
    assert facts["weights"]["matrices"] == 224
    assert facts["comparison"]["difference"] == pytest.approx(facts["comparison"]["floor"], rel=0.5)


def shrink(path: Path, factor: float) -> None:
    weights = load_file(path)
    save_file({name: it * factor if "lora_B" in name else it for name, it in weights.items()}, path)


def test_an_adapter_that_rounding_swallows_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from adapter_run import make_run
    from deep_base import write_deep_base

    base = write_deep_base(tmp_path / "base", layers=2)
    run = make_run(base, tmp_path / "run", quantization__load_in_4bit=False, model__torch_dtype="bfloat16")
    shrink(run / "adapter/adapter_model.safetensors", 1e-5)
    assert call(merge, [str(run), "--cpu"]) == 0, capsys.readouterr().err
    error = capsys.readouterr().err
    assert "rounding to bfloat16 keeps only" in error
    assert "too little to prove the merge by them" in error


def test_a_small_adapter_on_a_base_in_float32_is_merged(run: Path) -> None:
    # In bfloat16 the base is rounded to where this adapter moves nothing; in the files single values still differ.
    shrink(run / "adapter/adapter_model.safetensors", 1e-6)
    assert call(merge, [str(run), "--cpu"]) == 0


def test_without_room_nothing_is_begun(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(2**40, 2**40, 1000))  # type: ignore[attr-defined]
    assert call(merge, [str(run), "--cpu"]) == 1
    assert "MB needed, 0.0 MB free" in capsys.readouterr().err
    assert not (run / "merged").exists()


def test_an_earlier_merge_is_replaced_only_when_asked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(run), "--cpu", "--no-check"]
    assert call(merge, arguments) == 0
    assert call(merge, arguments) == 2
    assert "already holds a merged model\n  fix: replace it with --overwrite" in capsys.readouterr().err
    (run / "merged" / "mine.gguf").touch()
    assert call(merge, [*arguments, "--overwrite", "--dtype", "float32"]) == 0
    assert (run / "merged" / "mine.gguf").exists()
    assert not list(run.glob(".merged.*"))
    assert json.loads((run / "merged/merge.json").read_text(encoding="utf-8"))["dtype"] == "float32"


def test_one_merge_at_a_time_writes_a_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = FolderClaim(run / "merged")
    assert claim.acquire()
    assert call(merge, [str(run), "--cpu", "--no-check"]) == 2
    claim.release()
    assert "merged: another command is writing to it" in capsys.readouterr().err


def test_what_came_there_meanwhile_is_not_replaced(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def and_a_model_comes(*_: Any) -> None:
        (run / "merged").mkdir()
        (run / "merged" / "config.json").write_text("mine")

    monkeypatch.setattr(merge, "declare_ends", and_a_model_comes)
    assert call(merge, [str(run), "--cpu", "--no-check"]) == 2
    assert (run / "merged" / "config.json").read_text() == "mine"


def test_a_folder_of_other_things_is_never_replaced(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(merge, [str(run), "--cpu", "--overwrite", "--out", str(run.parent)]) == 2
    assert "is not a merged model" in capsys.readouterr().err
    assert run.exists()


def test_whoever_stops_reading_stops_no_merge(run: Path) -> None:
    """The comparison was printed before the model stood, and with its reader the model was gone."""

    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    with redirect_stdout(Gone()), pytest.raises(BrokenPipeError):  # which ends the command without a word
        call(merge, [str(run), "--cpu"])
    assert (run / "merged/merge.json").is_file()


@pytest.mark.parametrize(("how", "code"), [(KeyboardInterrupt(), 130), (TerminatedError(signal.SIGTERM), 143)])
def test_a_signal_leaves_nothing_behind(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: BaseException, code: int
) -> None:
    from kit.use import merging

    def interrupt(*_: Any, **__: Any) -> None:
        raise how

    monkeypatch.setattr(merging, "save_file", interrupt)
    assert call(merge, [str(run), "--cpu"]) == code
    assert "stopped; nothing was written" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == ["adapter", "run.json", "val.jsonl"]


def test_four_bits_are_merged_into_the_whole_base_and_that_is_said(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from adapter_run import make_run

    run = make_run(tiny_base, tmp_path / "demo", val_rows=2)
    assert call(merge, [str(run), "--cpu"]) == 0
    assert "trained on the base in 4 bits and is merged into the base as it is" in capsys.readouterr().err
    assert "rounded to 4 bits (nf4)" in (run / "merged/README.md").read_text(encoding="utf-8")


def test_an_adapter_that_fits_no_layer_is_a_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "adapter/adapter_model.safetensors"
    save_file({name.replace("layers.0", "layers.9"): tensor for name, tensor in load_file(path).items()}, path)
    assert call(merge, [str(run), "--cpu", "--no-check"]) == 2
    assert "which is missing here\n  fix: use its own base" in capsys.readouterr().err
    assert not (run / "merged").exists()


@pytest.mark.stacks
@pytest.mark.skipif(not REFERENCE.exists(), reason="there is no .venv-reference: make setup STACK=reference")
def test_both_stacks_write_the_same_bytes_and_read_each_others(run: Path, tmp_path: Path) -> None:
    score = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer; "
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], torch_dtype=torch.float32); "
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1]); "
        "ids = tokenizer('[INST] naïve 🦙 [/INST]', return_tensors='pt').input_ids; "
        "print(ids.tolist(), '|', *model(input_ids=ids).logits[0, -1, :8].tolist())"
    )
    pythons = {"current": sys.executable, "reference": str(REFERENCE)}
    for stack, python in pythons.items():
        script = [python, str(PROJECT_ROOT / "scripts/kit"), "merge", str(run), "--cpu", "--out", str(tmp_path / stack)]
        # Compared once, where no other test does.
        once = ["--no-check"] if stack == "current" else []
        done = subprocess.run([*script, *once], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "current" / name).read_bytes() == (tmp_path / "reference" / name).read_bytes()
    said = {}
    for stack, python in pythons.items():
        other = tmp_path / next(name for name in pythons if name != stack)
        done = subprocess.run(
            [python, "-W", "ignore", "-c", score, str(other)], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        ids, _, logits = done.stdout.strip().splitlines()[-1].partition(" | ")
        said[stack] = (ids, [float(value) for value in logits.split()])
    assert said["current"][0] == said["reference"][0]
    assert said["current"][1] == pytest.approx(said["reference"][1], abs=1e-4)


@pytest.mark.parametrize("link", ["merged", ".merged.partial"])
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_link_in_the_merges_place_leads_nowhere(
    run: Path, tmp_path: Path, link: str, overwrite: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    (run / link).symlink_to(precious)
    assert call(merge, [str(run), "--cpu", "--no-check", *overwrite]) in {1, 2}
    assert [(path.name, path.read_text()) for path in precious.iterdir()] == [("file", "mine")]
    assert "Traceback" not in capsys.readouterr().err
