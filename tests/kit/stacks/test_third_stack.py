"""A third generation is a file and a line of the registry: all else asks for its traits, and never for a name."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.checks import rules
from kit.cli.command import call
from kit.cli.interpreter import PROJECT_ROOT
from kit.commands import validate
from kit.config.resolve import resolve
from kit.data.batch_order import order_batches
from kit.data.encoding import EncodedRow
from kit.data.token_rows import TokenRows
from kit.environment.checks import check_training_dependencies
from kit.environment.facts import Environment
from kit.machine import facts as machines
from kit.machine.platforms import judge
from kit.model.shape import MISTRAL_7B
from kit.plan.alternatives import PlannedRun, same_updates
from kit.plan.loss import loss_work_bytes, saved_by_loss
from kit.plan.run_plan import device_for, plan_run
from kit.plan.step import MicroBatch, TrainingStep
from kit.plan.workload import full_length
from kit.stacks import current
from kit.stacks.attention import choose
from kit.stacks.registry import GENERATIONS, make_argument
from kit.stacks.stack import Stack, stack_of
from kit.train.resume import differences, identity_of

if TYPE_CHECKING:
    from kit.cli.findings import Finding

H100 = PROJECT_ROOT / "configs" / "training_config_h100.yaml"
MACHINE = PROJECT_ROOT / "tests" / "fixtures" / "machines" / "h100_80gb.json"
VERSIONS = {
    "torch": "2.20.0",
    "transformers": "6.1.0",
    "trl": "2.0.0",
    "bitsandbytes": "0.60.0",
    "flash-attn-4": "4.0.0",
    "liger-kernel": "0.8.5",
}
EVERY_2ND = {"training.gradient_checkpointing_every_n_layers": 2}


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A generation with something of either of the others, and an order of its own."""
    traits = replace(
        current.TRAITS,
        name="third",
        reader=replace(current.TRAITS.reader, stack="third"),
        attention=("flash_attention_4", "sdpa", "eager"),
        loss_in_tiles=False,
        partial_checkpointing_from=None,
        liger_kernel=False,
    )
    known = {"transformers": ((6,), (7,)), "torch": ((2, 18), (3,)), "trl": ((2,), (3,))}
    generation = replace(
        current.GENERATION, traits=traits, known=known, dataset=lambda order, columns: (len(order), columns(order))
    )
    monkeypatch.setitem(GENERATIONS, "third", generation)
    return stack_of(VERSIONS)


def _checked(stack: Stack, **changes: Any) -> dict[str, Finding]:
    machine = machines.read(MACHINE)
    found = rules.check(resolve(H100, changes), judge(machine), machine, stack)
    return {finding.id: finding for finding in found if finding.severity == "error"}


def test_versions_of_no_known_generation_are_refused_and_not_taken_for_the_nearest() -> None:
    stack = stack_of(VERSIONS)
    assert (stack.name, stack.traits) == ("unknown", current.TRAITS)
    found = _checked(stack)["stack.unknown"]
    assert found.message.startswith("transformers 6.1.0 (known from 5 to before 6), trl 2.0.0 (known from 1 to before")
    assert "these are assumed to be as in the current stack" in found.message
    assert all(item.name in found.message for item in fields(current.TRAITS) if item.name != "name")
    assert found.fix.startswith("make setup, or describe")
    here = check_training_dependencies(Environment(machines.read(MACHINE), installed=VERSIONS))
    assert found in here  # word for word, so that one validation says it once


@pytest.mark.parametrize(
    ("versions", "name", "nearest"),
    [
        ({"torch": "2.11.0", "transformers": "5.17.0", "trl": "1.16.0"}, "current", "current"),
        ({"torch": "2.1.0+cu121", "transformers": "4.36.2", "trl": "0.7.4"}, "reference", "reference"),
        ({"torch": "2.4.0", "transformers": "4.57.0"}, "unknown", "reference"),
        ({"torch": "3.0.0", "transformers": "5.23.0"}, "unknown", "current"),
        ({"torch": "2.1.0", "transformers": "4.30.0"}, "unknown", "reference"),
        ({"torch": "2.1.0"}, "none", "current"),
    ],
)
def test_a_generation_is_told_by_the_versions_it_is_known_in(versions: dict[str, str], name: str, nearest: str) -> None:
    stack = stack_of(versions)
    assert (stack.name, stack.traits.name) == (name, nearest)


def test_a_third_stack_is_validated_by_its_own_traits(third: Stack) -> None:
    assert third.name == "third"
    assert "stack.unknown" not in _checked(third)
    refused = _checked(third, **EVERY_2ND, **{"training.use_liger_kernel": True})
    assert "transformers 6.1.0 checkpoints all layers or none" in refused["config.levers.checkpointing"].message
    assert "the third stack of this environment has no liger" in refused["config.levers.liger_kernel"].message
    refused = _checked(third, **{"model.attn_implementation": "varlen"})
    assert "transformers 6.1.0 does not have" in refused["config.device.flash_attention"].message


def test_a_third_stack_is_planned_by_its_own_traits(third: Stack) -> None:
    settings, machine = resolve(H100).settings, machines.read(MACHINE)
    device, work = device_for(settings, judge(machine), machine, third), full_length(settings, 1000)
    assert device.attention == "flash_attention_4"
    assert plan_run(settings, MISTRAL_7B, device, work).peak.moment == "loss"
    batch = MicroBatch(1, 4096, False, 4095)
    whole = TrainingStep(MISTRAL_7B, settings, third.traits, "cuda", "flash_attention_4", batch)
    assert saved_by_loss(whole) + loss_work_bytes(whole) > 3 * 4095 * MISTRAL_7B.vocab_size * 4
    others = same_updates(PlannedRun(settings, MISTRAL_7B, device, lambda given: full_length(given, 1000)))
    assert not [item for item in others if next(iter(EVERY_2ND)) in dict(item.changes)]


def test_a_third_stack_chooses_its_own_attention(third: Stack) -> None:
    choice = choose(resolve(H100).settings, third, "h100", (9, 0))
    assert (choice.used.name, choice.used.words) == ("flash_attention_4", "FlashAttention 4, flash-attn-4 4.0.0")
    assert choose(resolve(H100).settings, third, "cpu", None).used.name == "sdpa"


def test_a_run_of_a_third_stack_is_resumed_by_that_stack_alone(third: Stack) -> None:
    rows = TokenRows.of([EncodedRow([1, 2, 3], [-100, 2, 3], 1, 3)] * 4)
    settings = resolve(H100, {"training.max_steps": 1}).settings
    plan, base = order_batches(settings, rows), {"files": {}}
    then = identity_of(settings, plan, third, "cpu", base)
    now = identity_of(settings, plan, Stack("current", third.versions), "cpu", base)
    assert differences(then, now) == {"stack": ("third", "current")}


def test_a_third_stack_is_called_by_its_own_adapters(third: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    from kit.train import trl_rows

    monkeypatch.setattr(trl_rows, "installed_stack", lambda: third)
    rows = TokenRows.of([EncodedRow([1, 2, 3], [-100, 2, 3], 1, 3)])
    assert trl_rows.rows_for_trl(rows, [0]) == (1, {"input_ids": [[1, 2, 3]], "labels": [[-100, 2, 3]]})


@pytest.mark.usefixtures("third")
def test_a_third_stack_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert make_argument("third") == " STACK=third"
    sample = f"data.train_file={PROJECT_ROOT}/data/sample/train.jsonl"
    call(validate, [sample, "data.val_file=null", "--from", str(MACHINE), "--stack", "third", "--json"])
    assert '"config.schema"' in capsys.readouterr().out


def test_nothing_outside_the_stacks_asks_for_a_name() -> None:
    found = []
    for folder in ("scripts", "bench"):
        for path in sorted((PROJECT_ROOT / folder).rglob("*.py")):
            name = path.relative_to(PROJECT_ROOT).as_posix()
            if not name.startswith("scripts/kit/stacks/"):
                found += [f"{name}:{node.lineno}" for node in _names(ast.parse(path.read_text(encoding="utf-8")))]
    assert found == []


def _names(tree: ast.AST) -> list[ast.expr]:
    """Every text that is a generation's name, and every comparison of a stack with what stands for no generation."""
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in set(GENERATIONS)]
    compared = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and "stack" in ast.unparse(node.left)
        and {"'none'", "'unknown'"} & {ast.unparse(part) for other in node.comparators for part in ast.walk(other)}
    ]
    return [*texts, *compared]


@pytest.mark.parametrize(
    "line", ["if name == 'current': pass", "x = {'reference': 1}", "if stack.name not in {'x', 'none'}: pass"]
)
def test_a_name_is_found_where_it_is_asked_for(line: str) -> None:
    assert _names(ast.parse(line))
    assert not _names(ast.parse("if stack.traits.padding_free or kind == 'none': pass"))
