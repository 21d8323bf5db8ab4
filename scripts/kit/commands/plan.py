"""Plan a run before it starts: peak memory term by term, tokens, time, a verdict, and settings that are faster and fit.

Run as:
    python scripts/kit plan                                              the configuration that fits this machine
    python scripts/kit plan configs/training_config_h100.yaml training.max_seq_length=2048
    python scripts/kit plan configs/training_config_h100.yaml --from h100.json    for a recorded machine
    python scripts/kit plan CONFIG --apply faster.yaml                   write a configuration with the fastest settings

Reads the configuration, the model's config.json and the rows; loads no weights and no torch. How the figures are made:
docs/MEMORY.md. Exit codes: 0 it fits or that is unknown, 1 it does not fit or the configuration is invalid, 2 wrong
use.
"""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.command import number_within
from kit.cli.console import fail, paint, say
from kit.cli.mistakes import WrongUseError
from kit.cli.screen import one_line
from kit.config.resolve import resolve
from kit.config.yaml_writer import scalar, write_config
from kit.machine.target import Target, add_target_arguments, next_command, target_of
from kit.model.families import family_names
from kit.model.shape import read_shape, shape_of
from kit.plan.alternatives import Alternative, PlannedRun, faster, mildest_that_fits, other_mathematics
from kit.plan.padding_free import decided, decision
from kit.plan.rows import read_rows, workloads_for
from kit.plan.run_plan import RunPlan, device_for
from kit.plan.show import alternative_lines, left_out, meaning, memory_lines, source_lines, time_lines
from kit.stacks.registry import GENERATIONS
from kit.stacks.stack import Stack, installed_stack, stack_named

if TYPE_CHECKING:
    import argparse

    from kit.config.resolve import Resolved
    from kit.model.shape import ModelShape

SCHEMA_VERSION = 1
# The arithmetic does not tell settings apart that differ by less.
_WORTHWHILE = 0.97
# Settings whose effect on memory and time is not in the formulas: both are expected to take less.
_NOT_PLANNED = ("torch_compile", "use_liger_kernel")


@dataclass(frozen=True)
class Planned:
    """One plan and what could be done instead."""

    plan: RunPlan
    faster: list[Alternative]
    other: list[Alternative]
    mildest: Alternative | None
    rows: str
    attention: str
    left_out: tuple[str, ...]
    resolved: Resolved

    @property
    def best(self) -> Alternative | None:
        """The settings to go on with: the fastest that fit, or the mildest change that does; None for the present."""
        if self.plan.verdict not in {"fits", "unknown"}:
            return self.mildest
        present = next(item for item in self.faster if not item.changes)
        return self.faster[0] if self.faster[0].cost < present.cost * _WORTHWHILE else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target_arguments(parser)
    parser.add_argument("--stack", choices=tuple(GENERATIONS), help="plan for this stack; default: the installed one")
    parser.add_argument("--model-config", type=Path, metavar="FILE", help="a config.json instead of the model's own")
    parser.add_argument(
        "--rows", type=number_within(1), metavar="N", help="plan for N rows of full length instead of the data"
    )
    parser.add_argument(
        "--apply", type=Path, metavar="NEW.yaml", help="write a configuration with the fastest settings"
    )


def run(options: argparse.Namespace) -> int:
    target = target_of(options)
    resolved = resolve(target.config, target.overrides)
    shape = _shape(resolved, options.model_config)
    stack = installed_stack()
    if options.stack:
        stack = stack_named(options.stack, target.judgement.platform, elsewhere=target.is_recorded)
    planned = _plan(resolved, shape, target, stack, options.rows)
    if options.json:
        print(_as_json(planned, target))
    else:
        _show(planned, target, stack)
    if options.apply:
        return _apply(planned, options.apply)
    return 1 if planned.plan.verdict == "does not fit" else 0


def _shape(resolved: Resolved, path: Path | None) -> ModelShape:
    if path is None:
        model = resolved.settings.model
        shape = shape_of(model)
        if shape is None:
            raise WrongUseError(
                f"{model.model_name_or_path}: no config.json of {family_names()} on this machine; "
                "name one: --model-config FILE"
            )
        return shape
    try:
        return read_shape(path)
    except OSError as exc:
        raise WrongUseError(f"{path}: {exc.strerror}; name a model's config.json") from exc
    except ValueError as exc:
        raise WrongUseError(f"{path}: {exc}; name a model's config.json") from exc


def _plan(resolved: Resolved, shape: ModelShape, target: Target, stack: Stack, rows: int | None) -> Planned:
    read = None if rows else read_rows(resolved.settings)
    resolved = decided(resolved, target.judgement, stack, read)
    settings = resolved.settings
    device = device_for(settings, target.judgement, target.machine, stack)
    planned_run = PlannedRun(settings, shape, device, *workloads_for(settings, rows or read))
    plan = planned_run.plan
    left_out = tuple(key for key in _NOT_PLANNED if getattr(settings.training, key))
    mildest = None if plan.verdict in {"fits", "unknown"} else mildest_that_fits(planned_run)
    found = faster(planned_run), other_mathematics(planned_run)
    return Planned(plan, *found, mildest, planned_run.rows, device.attention, left_out, resolved)


def _show(planned: Planned, target: Target, stack: Stack) -> None:
    plan, judgement = planned.plan, target.judgement
    how = f"{stack.name} stack, {planned.attention}"
    say(f"{target.config} on {judgement.platform}, {how}: {judgement.reason}", "bold")
    say(f"planned for {planned.rows}", "dim")
    if reason := decision(planned.resolved):
        say(reason, "dim")
    if planned.left_out:
        say(f"upper bound: these are not counted: training.{', training.'.join(planned.left_out)}", "yellow")
    notes = [meaning(judgement.platform), left_out(plan, judgement.platform)]
    lines = [*memory_lines(plan), *(f"  {line}" for note in notes for line in textwrap.wrap(note, 116))]
    lines += [*source_lines(plan), "", *time_lines(plan), ""]
    title = "the same updates, fastest first (peak memory, share of the time above):"
    lines += alternative_lines(title, planned.faster, planned.plan)
    lines += alternative_lines("other updates:", planned.other, planned.plan)
    print("\n".join(map(one_line, lines)))
    colours = {"fits": "green", "does not fit": "red"}
    verdict = paint(plan.verdict, colours.get(plan.verdict, "yellow"), "bold", stream=sys.stdout)
    print(f"\n{verdict}\nnext: {one_line(_next(planned, target))}")


def _next(planned: Planned, target: Target) -> str:
    best = planned.best
    if best:
        kept = [text for text in target.overrides if text.partition("=")[0] not in dict(best.changes)]
        return f'make plan CONFIG={target.config} SET="{" ".join((*kept, best.overrides))}"'
    if planned.plan.verdict == "does not fit":
        return "a smaller model, or a device with more free memory"
    return next_command(target, failed=False)


def _as_json(planned: Planned, target: Target) -> str:
    plan = planned.plan
    time = {"time": plan.duration.source} if plan.duration else {}
    body = {
        "schema_version": SCHEMA_VERSION,
        "config": str(target.config),
        "platform": target.judgement.platform,
        "rows": planned.rows,
        "attention": planned.attention,
        "padding_free": planned.resolved.settings.training.padding_free,
        "not_planned": [f"training.{key}" for key in planned.left_out],
        "not_counted": left_out(plan, target.judgement.platform),
        "meaning": meaning(target.judgement.platform),
        "sources": {source.part: source.origin for source in plan.sources} | time,
        **plan.as_mapping(),
        "suggestions": [item.as_mapping() for item in (*planned.faster, *planned.other) if item.changes],
    }
    return json.dumps(body, indent=2, ensure_ascii=False)


def _apply(planned: Planned, path: Path) -> int:
    best, failed = planned.best, planned.plan.verdict == "does not fit"
    if best is None:
        say(f"{path} was not written: {'nothing fits' if failed else 'no other settings are faster and fit'}")
        return 1 if failed else 0
    if not best.is_same_mathematics:
        say(f"{path} was not written: only {best.overrides} fits, which changes the updates")
        return 1
    resolved = planned.resolved
    origins = {key: f"plan, was {scalar(resolved.value(key))}" for key, _ in best.changes}
    heading = f"{resolved.path} with the fastest settings by `make plan`: {best.overrides}"
    try:
        write_config(path, resolved.with_changes(dict(best.changes), origins), heading)
    except FileExistsError:
        return fail(f"{path} already exists", "name a new file: --apply NEW.yaml")
    except OSError as exc:
        return fail(f"{path}: {exc.strerror}", "name a file that can be written: --apply NEW.yaml")
    say(f"written: {path}")
    say(f"next: make validate CONFIG={path}")
    return 0
