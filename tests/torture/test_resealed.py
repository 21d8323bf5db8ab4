"""A checkpoint of a stranger: whole by its own manifest, and not what a run saves. Going on from it is one sentence."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from kit.run_directory import checkpoints
from kit.run_directory.checkpoints import DamagedCheckpointError
from kit.run_directory.receipt import read_receipt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torture.kills import Torture

pytestmark = pytest.mark.slow


def _reseal(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Make a changed folder a checkpoint that is complete again, with a change to its manifest."""
    manifest = json.loads((folder / checkpoints.MANIFEST).read_bytes())
    del manifest["sha256"]
    manifest["files"] = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path.read_bytes()).hexdigest()}
        for path in sorted(folder.iterdir())
        if path.name != checkpoints.MANIFEST
    }
    change(manifest)
    (folder / checkpoints.MANIFEST).write_bytes(checkpoints.seal(manifest))


def _tensors(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / name)
        change(tensors)
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)

    return spoil


def _state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        changed = change(state)
        (folder / "state.json").write_text(json.dumps(state if changed is None else changed), encoding="utf-8")

    return spoil


def _first(tensors: dict[str, Any], part: str = "") -> str:
    return next(name for name in sorted(tensors) if part in name)


def _packed(state: dict[str, Any], *path: str) -> list[list[Any]]:
    """Find a dictionary in a packed state, as pairs that can be changed."""
    pairs: Any = state["optimizer"]["dict"]
    for name in path:
        value = next(value for key, value in pairs if str(key) == name)
        pairs = value["list"][0]["dict"] if "list" in value else value["dict"]
    return list(pairs)


def _set(pairs: list[list[Any]], key: str, value: Any) -> None:
    next(pair for pair in pairs if pair[0] == key)[1] = value


ADAPTER, OPTIMIZER = "adapter_model.safetensors", "optimizer.safetensors"
SPOILT: dict[str, Callable[[Path], None]] = {
    "adapter: another shape": _tensors(ADAPTER, lambda t: t.update({_first(t): t[_first(t)][:1]})),
    "adapter: another type": _tensors(ADAPTER, lambda t: t.update({_first(t): t[_first(t)].double()})),
    "adapter: NaN": _tensors(ADAPTER, lambda t: t[_first(t)].fill_(float("nan"))),
    "adapter: a weight gone": _tensors(ADAPTER, lambda t: t.pop(_first(t))),
    "adapter: a weight more": _tensors(ADAPTER, lambda t: t.update(more=t[_first(t)].clone())),
    "adapter: no safetensors": lambda folder: (folder / ADAPTER).write_bytes(b"\xff" * 100) and None,
    "adapter: gone": lambda folder: (folder / ADAPTER).unlink(),
    "optimizer: another shape": _tensors(OPTIMIZER, lambda t: t.update({_first(t, "avg"): t[_first(t, "avg")][:1]})),
    "optimizer: NaN": _tensors(OPTIMIZER, lambda t: t[_first(t, "avg")].fill_(float("nan"))),
    "optimizer: a tensor gone": _tensors(OPTIMIZER, lambda t: t.pop(_first(t, "avg"))),
    "optimizer: no groups": _state(lambda s: _set(s["optimizer"]["dict"], "param_groups", {"list": []})),
    "optimizer: no moments": _state(lambda s: _set(s["optimizer"]["dict"], "state", {"dict": []})),
    "optimizer: other weights": _state(lambda s: _set(_packed(s, "param_groups"), "params", {"list": [0, 1]})),
    "optimizer: a rate in words": _state(lambda s: _set(_packed(s, "param_groups"), "lr", "fast")),
    "optimizer: two betas in one": _state(lambda s: _set(_packed(s, "param_groups"), "betas", {"tuple": [0.9]})),
    "optimizer: a number": _state(lambda s: s.update(optimizer=7)),
    "schedule: elsewhere": _state(lambda s: _set(s["scheduler"]["dict"], "last_epoch", 10**6)),
    "schedule: a list": _state(lambda s: s.update(scheduler={"list": [1]})),
    "state: another step": _state(lambda s: s.update(step=s["step"] + 1)),
    "state: a step in words": _state(lambda s: s.update(step="two")),
    "state: empty": _state(lambda _: {}),
    "state: a list": _state(lambda _: []),
    "state: no JSON": lambda folder: (folder / "state.json").write_bytes(b"{") and None,
    "state: short random numbers": _state(lambda s: s["random"].update(torch="00")),
    "state: odd random numbers": _state(lambda s: s["random"].update(python=[3, [1, 2, 3], None])),
    "state: no random numbers": _state(lambda s: s.pop("random") and None),
    "curves: no lines": lambda folder: (folder / "metrics.jsonl").write_bytes(b'{"step": 1}\n[]\n') and None,
    "curves: gone": lambda folder: (folder / "metrics.jsonl").unlink(),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_going_on_from_what_no_run_saved_is_one_sentence(
    small_torture: Torture, spoil: Callable[[Path], None], request: pytest.FixtureRequest
) -> None:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.callspec.id)
    folder = small_torture.folder / name / "checkpoints/checkpoint-6"
    shutil.copytree(small_torture.folder / "peace/checkpoints/checkpoint-6", folder)
    spoil(folder)
    _reseal(folder)
    log = small_torture.folder / "log.txt"
    before = log.stat().st_size
    assert small_torture.attempt(name) == 1
    said = log.read_bytes()[before:].decode()
    assert str(folder) in said
    assert "fix:" in said
    assert "Traceback" not in said
    assert "bug" not in said
    receipt = read_receipt(folder.parents[1])
    assert receipt is None or receipt["state"] == "failed"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(step="six"),
        lambda m: m.update(step=True),
        lambda m: m.pop("step"),
        lambda m: m.update(files=[]),
        lambda m: m["files"].update({"../../run.json": next(iter(m["files"].values()))}),
        lambda m: m["files"].update({"state.json": 7}),
        lambda m: m["files"]["state.json"].update(bytes="many"),
        lambda m: m.update(facts=[]),
        lambda m: m.pop("facts"),
        lambda m: m["facts"].update(identity=[]),
    ],
)
def test_a_manifest_that_the_kit_did_not_write_is_a_damaged_one(
    small_torture: Torture, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    folder = tmp_path / "taken"
    shutil.copytree(small_torture.folder / "peace/checkpoints/checkpoint-6", folder)
    _reseal(folder, change)
    with pytest.raises(DamagedCheckpointError, match="that the kit did not write"):
        checkpoints.read(folder)


def test_a_checkpoint_beyond_the_runs_end_is_one_sentence(small_torture: Torture) -> None:
    folder = small_torture.folder / "beyond/checkpoints/checkpoint-60"
    shutil.copytree(small_torture.folder / "peace/checkpoints/checkpoint-6", folder)
    _state(lambda state: state.update(step=60))(folder)
    _reseal(folder, lambda manifest: manifest.update(step=60))
    before = (small_torture.folder / "log.txt").stat().st_size
    assert small_torture.attempt("beyond") == 1
    said = (small_torture.folder / "log.txt").read_bytes()[before:].decode()
    assert "is at step 60, but this run has only 8" in said
    assert "Traceback" not in said
