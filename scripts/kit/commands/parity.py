"""Train a small canonical model and compare every number with the formulas.

Run as:
    python scripts/kit parity                             (or: make parity, make parity STACK=reference)
    python scripts/kit parity --against theirs.json       and with another machine's result
    python scripts/kit parity --from mine.json --against theirs.json    two files; nothing is trained

Writes outputs/parity-STACK-PLATFORM.json, to compare on another machine and for reports. What is
trained, and the origin of the tolerances: docs/PARITY.md. Exit codes: 0 it agrees, 1 it does not, 2 wrong use.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from kit.cli.command import refuse
from kit.cli.console import fail, paint, say
from kit.cli.findings import as_json, has_errors, render, summary
from kit.cli.quiet_libraries import quiet_imports
from kit.cli.screen import one_line
from kit.files.json_files import write_json
from kit.machine.one_device import use_judged_device
from kit.machine.platforms import judge as judge_machine
from kit.machine.probe import probe
from kit.parity.agreement import agreement, check_agreement, judge_pair, verdict, verdict_of
from kit.parity.contract import CASES
from kit.parity.results import REFERENCE, Result, describe_place, read_reference, read_result, result_file
from kit.run_directory.history import OUTPUTS
from kit.stacks.stack import installed_stack


def run(options: argparse.Namespace) -> int:
    if options.measured is None and not installed_stack().is_installed:
        return fail("torch and transformers are not installed", "make setup")
    try:
        return _record() if options.record else _agree(options)
    except OSError as exc:
        return refuse(exc)


def _agree(options: argparse.Namespace) -> int:
    theirs = read_result(options.against) if options.against else None
    contract, exact = read_reference()
    mine = read_result(options.measured) if options.measured else _measure(options)
    findings = check_agreement(mine, contract, exact)
    sentences = [verdict_of(mine, findings, exact)]
    if theirs is not None:
        between = judge_pair(mine, theirs)
        sentences.append(verdict(mine, f"the other file, {theirs.place}", between, agreement(mine, theirs.numbers())))
        findings += between
    failed = has_errors(findings) or not any(finding.severity == "ok" for finding in findings)
    if options.json:
        print(as_json(findings, agrees=not failed, sentences=sentences, result=mine.as_json()))
        return int(failed)
    render(findings)
    for sentence in sentences:
        print(f"\n{paint(one_line(sentence), 'red' if failed else 'green', 'bold', stream=sys.stdout)}", end="")
    print(f" ({summary(findings)})")
    if theirs is None and not failed:
        say('next: copy the file in outputs/ to the other machine: make parity ARGS="--against FILE"', "dim")
    return int(failed)


def _measure(options: argparse.Namespace) -> Result:
    """Train every case the stack can, and keep what came of it."""
    machine, stack = probe(), installed_stack()
    use_judged_device()
    platform = "cpu" if options.cpu else judge_machine(machine).platform
    path = options.out or result_file(OUTPUTS, stack.name, platform, options.attention)
    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"{stack.name} stack on {platform}: loading the libraries …", "dim")
    with quiet_imports():
        from kit.parity.measure import CanonicalModel, run_case
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        canon = CanonicalModel(Path(folder))
        results = []
        for case in CASES:
            say(f"{case.name} …", "dim")
            results.append(run_case(canon, case, platform, options.attention))
        result = Result(canon.contract, describe_place(machine, platform, stack), tuple(results))
    write_json(path, result.as_json())
    say(f"written: {path}", "dim")
    return result


def _record() -> int:
    """Compute the formulas again and write the reference."""
    say("computing in float64 …", "dim")
    with quiet_imports():
        from kit.parity.measure import CanonicalModel
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        canon = CanonicalModel(Path(folder))
        exact = {name: asdict(numbers.rounded()) for name, numbers in canon.exact().items()}
        write_json(REFERENCE, {"schema_version": 1, "contract": canon.contract, "exact": exact})
    print(f"{REFERENCE}: written. Next: make parity, on both stacks, and commit it")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--against", type=Path, metavar="FILE", help="another machine's result")
    parser.add_argument("--from", dest="measured", type=Path, metavar="FILE", help="a result instead of this machine")
    parser.add_argument(
        "--attention",
        default="auto",
        choices=("auto", *installed_stack().attention_implementations),
        help="default: as a run chooses",
    )
    parser.add_argument("--cpu", action="store_true", help="use the CPU even where there is a GPU")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: outputs/parity-STACK-PLATFORM.json")
    parser.add_argument("--record", action="store_true", help="recompute the formulas and write the reference")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
