"""Detect the hardware, check it, and name the configuration and the next command.

Run as:
    make detect                                        or, on any Python from 3.9, with nothing installed:
    python scripts/kit detect
    python scripts/kit detect --record machine.json  write the facts to a file, to send or to replay
    python scripts/kit detect --from machine.json    judge recorded facts instead of this machine

Exit code: 0 fine or warnings only, 1 errors found, 2 wrong use or a file that cannot be read.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.console import fail, gigabytes, paint, say
from kit.cli.failures import run_check
from kit.cli.findings import Finding, as_json, error, exit_code, ok, render, skipped, summary
from kit.cli.screen import one_line
from kit.files.durable import replace_file
from kit.machine import facts as machines
from kit.machine.nvidia_rules import place
from kit.machine.one_device import use_judged_device
from kit.machine.platforms import Judgement, judge
from kit.machine.probe import probe
from kit.machine.recorded import to_json
from kit.stacks.generation import dotted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kit.machine.facts import Gpu, Machine


def detect_platform(machine: Machine | None = None) -> Judgement:
    """Judge this machine, or recorded facts: platform, reason, configuration, time, findings."""
    return judge(probe() if machine is None else machine)


def check_gpu(machine: Machine | None = None) -> list[Finding]:
    """Return the findings alone."""
    return list(detect_platform(machine).findings)


def check_mps_backend(machine: Machine | None = None) -> list[Finding]:
    """Ask the installed torch whether MPS works; imports torch, and only on macOS.

    Recorded facts are asked for ``mps_available`` instead of torch.
    """
    system = platform.system() if machine is None else machine.system
    if system != "Darwin":
        return [skipped("torch.mps", f"MPS needs a Mac; this machine runs {system}")]
    available = machine.mps_available if machine is not None else None
    if available is None:
        try:
            import torch
        except ImportError:
            return [skipped("torch.mps", "torch is not installed, so MPS was not tested", "make setup")]
        available = bool(torch.backends.mps.is_available())
    if available:
        return [ok("torch.mps", "torch can use MPS")]
    fix = "use an arm64 Python on macOS 14 or later, then: make setup"
    return [error("torch.mps", "torch cannot use MPS on this Mac", fix)]


def check_cuda_backend(machine: Machine) -> list[Finding]:
    """Ask the installed torch whether it reaches the NVIDIA GPU; imports torch, and only where there is one."""
    if not machine.nvidia.gpus:
        return [skipped("torch.cuda", "no NVIDIA GPU to test")]
    try:
        import torch
    except ImportError:
        return [skipped("torch.cuda", "torch is not installed, so CUDA was not tested", "make setup")]
    use_judged_device()
    if torch.cuda.is_available():
        return [ok("torch.cuda", f"torch {torch.__version__} uses {torch.cuda.get_device_name(0)}")]
    built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build without CUDA"
    return [error("torch.cuda", f"torch cannot use the GPU; torch {torch.__version__} {built}", "make setup")]


def facts_table(machine: Machine) -> list[tuple[str, str]]:
    """Return what is known of a machine as rows of a name and a text."""
    rows = [
        ("system", f"{machine.system} {machine.arch}{', in a container' if machine.in_container else ''}"),
        ("python", machine.python_version),
        ("cpu", f"{machine.cpu_model}, {machine.cpu_count} usable"),
        ("memory", _of(machine.memory_available_bytes, machine.memory_total_bytes)),
        ("disk", "unknown" if machine.disk_free_bytes is None else f"{gigabytes(machine.disk_free_bytes)} free"),
    ]
    apple = machine.apple
    if apple:
        version = dotted(apple.macos_version) if apple.macos_version else "unknown"
        cores = f", {apple.gpu_cores} GPU cores" if apple.gpu_cores else ""
        rows.append(("apple", f"{apple.chip}{cores}, macOS {version}{', Rosetta' if apple.is_rosetta else ''}"))
    nvidia = machine.nvidia
    if nvidia.driver_version:
        cuda = nvidia.cuda_driver_version
        supports = "" if cuda is None else f", CUDA up to {cuda[0]}.{cuda[1]}"
        rows.append(("driver", f"{nvidia.driver_version}{supports}"))
    rows += [(place(gpu).lower(), _gpu_text(gpu)) for gpu in nvidia.gpus]
    if nvidia.cuda_visible_devices is not None:
        rows.append(("visible", f"CUDA_VISIBLE_DEVICES={nvidia.cuda_visible_devices}"))
    return rows


def _of(available: int | None, total: int | None) -> str:
    if total is None:
        return "unknown"
    return gigabytes(total) + ("" if available is None else f", {gigabytes(available)} available")


def _gpu_text(gpu: Gpu) -> str:
    used = "" if gpu.memory_used_bytes is None else f", {gigabytes(gpu.memory_used_bytes)} in use"
    known = gpu.compute_capability
    capability = "" if known is None else f", compute capability {known[0]}.{known[1]}"
    return f"{gpu.name}, {gigabytes(gpu.memory_total_bytes)}{used}{capability}{', MIG mode' if gpu.mig_enabled else ''}"


def _show(machine: Machine, judgement: Judgement, findings: Sequence[Finding]) -> None:
    rows = facts_table(machine)
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{paint(f'{name:<{width}}', 'dim', stream=sys.stdout)}  {one_line(text)}")
    print()
    render(findings)
    print(f"\n{summary(findings)}")
    failed = exit_code(findings) != 0
    again = failed and judgement.next_command == "make detect"
    verdict = (
        ("platform", paint(judgement.platform, "bold", "red" if failed else "green", stream=sys.stdout)),
        ("why", judgement.reason),
        ("config", judgement.recommended_config.as_posix()),
        ("time", judgement.expected_time),
        ("next", f"{'fix the errors above, then: ' if again else ''}{judgement.next_command}"),
    )
    for name, text in verdict:
        print(f"{paint(f'{name:<8}', 'bold', stream=sys.stdout)}  {text}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--record", metavar="FILE", type=Path, help="write this machine's facts to FILE")
    parser.add_argument("--from", dest="source", metavar="FILE", type=Path, help="judge the facts recorded in FILE")
    parser.add_argument("--torch", action="store_true", help="also test the device with the installed torch")


def run(options: argparse.Namespace) -> int:
    if options.torch and options.source:
        return fail("--torch tests this machine, and --from judges another", "give one of them")
    try:
        machine = machines.read(options.source) if options.source else probe()
    except OSError as exc:
        return fail(f"{options.source}: cannot be read: {exc.strerror or exc}", "check the path given to --from")
    except ValueError as exc:
        return fail(f"{options.source}: {exc}", "record the machine again: python scripts/kit detect --record FILE")
    torch_findings: list[Finding] = []
    if options.torch:
        torch_findings += run_check(check_mps_backend, "torch.mps")
        torch_findings += run_check(lambda: check_cuda_backend(machine), "torch.cuda")
        mps = next((finding.severity for finding in torch_findings if finding.id == "torch.mps"), "skipped")
        if mps in ("ok", "error"):
            machine = replace(machine, mps_available=mps == "ok")
    if options.record:
        try:
            replace_file(options.record, to_json(machine).encode())
        except OSError as exc:
            return fail(f"{options.record}: cannot be written: {exc.strerror or exc}", "give --record another path")
        say(f"facts written to {options.record}")
    judgement = judge(machine)
    findings = [*judgement.findings, *torch_findings]
    if any(finding.severity == "error" for finding in torch_findings):
        judgement = replace(judgement, next_command="make detect")
    if options.json:
        print(as_json(findings, **judgement.as_mapping(), machine=asdict(machine)))
    else:
        _show(machine, judgement, findings)
    return exit_code(findings)
