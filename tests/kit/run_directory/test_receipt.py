"""run.json: whole whenever it is read, free of secrets, and honest about what is not known."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kit.cli.interpreter import PROJECT_ROOT
from kit.config.resolve import resolve
from kit.machine import facts as machines
from kit.run_directory import receipt as receipts
from kit.run_directory import receipt_keys
from kit.run_directory.provenance import describe_before
from kit.run_directory.receipt import Receipt
from kit.run_directory.receipt_keys import LAST_STEP, RUN, SESSION
from kit.stacks.stack import stack_of

MACHINE = machines.read(PROJECT_ROOT / "tests" / "fixtures" / "machines" / "h100_80gb.json")
STACK = stack_of({"torch": "2.10.0", "transformers": "5.23.0"})


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_a_receipt_is_on_disk_from_the_start(tmp_path: Path) -> None:
    receipt = Receipt(tmp_path / "outputs" / "run", seed=7)
    content = _read(receipt.path)
    assert (content["schema_version"], content["state"], content["seed"]) == (1, "started", 7)
    assert content["started_at"].endswith("+00:00")
    assert "ended_at" not in content


def test_a_receipt_grows_and_is_completed(tmp_path: Path) -> None:
    receipt = Receipt(tmp_path, seed=7)
    receipt.update(state="training", attention="sdpa")
    assert _read(receipt.path)["state"] == "training"
    receipt.finish("finished", eval_loss=0.5)
    content = _read(receipt.path)
    assert (content["state"], content["attention"], content["eval_loss"]) == ("finished", "sdpa", 0.5)
    assert content["seconds"] >= 0
    assert content["ended_at"] >= content["started_at"]


def test_a_resumed_run_has_one_receipt_that_tells_every_session(tmp_path: Path) -> None:
    first = Receipt(tmp_path, argv=["a"])
    first.update(steps_done=4)
    killed = _read(first.path)
    assert (killed["sessions"][0]["state"], killed["sessions"][0]["to_step"]) == ("running", 4)
    killed["sessions"][0]["seconds"] = 100.0
    second = Receipt(tmp_path, earlier=killed, from_step=3, argv=["b"], steps_done=3)
    second.finish("interrupted", steps_done=6, signal=15)
    third = Receipt(tmp_path, earlier=_read(first.path), from_step=6, argv=["c"])
    third.finish("finished", steps_done=9)
    content = _read(first.path)
    told = [(each["state"], each["from_step"], each["to_step"], each["argv"]) for each in content["sessions"]]
    assert told == [("killed", 0, 4, ["a"]), ("interrupted", 3, 6, ["b"]), ("finished", 6, 9, ["c"])]
    assert content["started_at"] == killed["started_at"]
    assert 100.0 <= content["seconds"] < 110.0


HAPPENED: dict[str, Any] = {
    "bad_losses": [{"kind": "zero", "step": 3, "message": "m", "rows": []}],
    "stalls": [{"what": "step 2", "rows": [], "seconds": 9.0, "went_on": True}],
    "resumed_inexactly": True,
    "changes_allowed": [{"step": 2, "key": "k", "was": 1, "is": 2}],
    "compute_changes": [{"step": 2, "key": "threads", "was": 1, "is": 2}],
    "wandb_id": "0123abcd",
}
OF_STEP_4: dict[str, Any] = {"tokens": 900, "train_loss": 1.5, "eval_loss": 1.75, "compute": {"threads": 2}}


def test_what_happened_to_a_run_stays_in_its_receipt_however_often_it_is_resumed(tmp_path: Path) -> None:
    first = Receipt(tmp_path, attention="sdpa", steps_done=0)
    first.update(**HAPPENED, **OF_STEP_4, steps_done=4)
    for _ in range(2):
        again = Receipt(tmp_path, earlier=_read(first.path), from_step=4, steps_done=4)
        content = _read(first.path)
        assert {key: content[key] for key in (*HAPPENED, *OF_STEP_4)} == {**HAPPENED, **OF_STEP_4}
        assert content["seconds"] == round(sum(each["seconds"] for each in content["sessions"]), 3)
        assert "attention" not in content  # the session's, known once its model is built
        again.finish("interrupted", signal=15)


def test_what_was_not_gone_on_with_is_not_the_runs(tmp_path: Path) -> None:
    first = Receipt(tmp_path)
    first.update(**HAPPENED, **OF_STEP_4, steps_done=4)
    Receipt(tmp_path, earlier=_read(first.path), from_step=2, steps_done=2)
    content = _read(first.path)
    assert not {"changes_allowed", "compute_changes", *OF_STEP_4} & content.keys()
    assert content["bad_losses"] == HAPPENED["bad_losses"]


@pytest.mark.parametrize("damage", [5, "text", [5, "text"], {"a": 1}, None])
def test_what_is_not_what_a_receipt_holds_is_not_carried_over(tmp_path: Path, damage: object) -> None:
    receipt = Receipt(tmp_path, earlier=dict.fromkeys(receipt_keys.top_level(RUN), damage), from_step=3)
    receipt.finish("finished")
    assert not {"bad_losses", "stalls", "changes_allowed", "compute_changes", "resumed_inexactly", "wandb_id"} & set(
        _read(receipt.path)
    )


def test_every_key_that_is_written_is_declared() -> None:
    """In each call that writes one; a real receipt is held to the declared keys by ``tests/test_docs_receipt.py``."""
    declared = receipt_keys.top_level(RUN) | receipt_keys.top_level(LAST_STEP) | receipt_keys.top_level(SESSION)
    written = set()
    rooms = ("run_directory", "train", "supervise", "track", "runs")
    for path in (path for room in rooms for path in (PROJECT_ROOT / "scripts/kit" / room).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in {"Receipt", "update", "finish", "_update", "_finish_part"}:
                    written |= {keyword.arg for keyword in node.keywords if keyword.arg}
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                of = node.value.attr if isinstance(node.value, ast.Attribute) else ""
                if of == "facts" and isinstance(node.slice, ast.Constant):
                    written.add(node.slice.value)
    assert len(written) > 20
    assert written - {"earlier", "from_step", "energy", "exit_code", "sync"} <= declared  # arguments, and of wandb


def test_energy_is_added_up_over_the_sessions_and_unknown_where_one_of_them_is(tmp_path: Path) -> None:
    readings = iter([1.5, 40.25, 100.0, 7.0])
    first = Receipt(tmp_path, energy=lambda: next(readings))
    first.update(state="training")
    first.finish("interrupted")
    assert _read(first.path)["energy_joules"] == 40.25
    second = Receipt(tmp_path, earlier=_read(first.path), energy=lambda: next(readings))
    second.finish("interrupted")
    content = _read(first.path)
    assert [session["energy_joules"] for session in content["sessions"]] == [40.25, 100.0]
    assert content["energy_joules"] == 140.25
    third = Receipt(tmp_path, earlier=content)
    third.finish("finished")
    assert _read(first.path)["energy_joules"] is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_receipt_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert receipts.read_receipt(tmp_path) is None
    assert receipts.read_receipt(tmp_path / "nowhere") is None


def test_a_flipped_bit_of_a_receipt_is_found(tmp_path: Path) -> None:
    receipt = Receipt(tmp_path, rate=1e-5, path=Path("data"), name=os.fsdecode(b"rows-\xff.jsonl"), loss=float("nan"))
    content = receipt.path.read_bytes()
    assert receipts.is_untouched(content)
    for position in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        assert not receipts.is_untouched(bytes(flipped)), position


def test_curves_are_equal_when_their_hashes_are(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 2.5, "seconds": 0.1}, {"step": 1, "eval_loss": 2.25}]
    hashes = []
    for name, loss, seconds in (("a", 2.5, 0.1), ("b", 2.5, 7.0), ("c", 2.5000000000000004, 0.1)):
        changed = [{**lines[0], "loss": loss, "seconds": seconds}, lines[1]]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8")
        hashes.append(receipts.loss_trace_sha256(tmp_path / name))
    assert hashes[0] == hashes[1] != hashes[2]


def test_no_environment_variables_value_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "planted-secret")
    resolved = resolve(PROJECT_ROOT / "configs" / "training_config_demo.yaml")
    facts = describe_before(["config.yaml"], resolved.settings, resolved.origins, MACHINE, STACK)
    receipt = Receipt(tmp_path, **facts)
    receipt.finish("failed", error="ValueError: no")
    assert "planted-secret" not in receipt.path.read_text(encoding="utf-8")


def test_a_token_on_the_command_line_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "known-t0ken")
    resolved = resolve(PROJECT_ROOT / "configs/training_config_demo.yaml")
    argv = ["a.yaml", "--token", "short", "x=https://me:p4ss-w0rd@host", "known-t0ken"]
    facts = describe_before(argv, resolved.settings, resolved.origins, MACHINE, STACK)
    assert facts["argv"] == ["a.yaml", "--token", "[redacted]", "x=[redacted]", "[redacted]"]
    assert "known-t0ken" not in json.dumps(facts, default=str)


@pytest.mark.parametrize("sessions", [None, 5, "text", [5], [{}], [{"state": "failed"}], [{"seconds": "long"}]])
def test_sessions_that_are_none_are_not_gone_on_with(tmp_path: Path, sessions: object) -> None:
    receipt = Receipt(tmp_path, earlier={"sessions": sessions}, from_step=3)
    receipt.finish("finished")
    (session,) = _read(receipt.path)["sessions"]
    assert (session["from_step"], session["state"]) == (3, "finished")
