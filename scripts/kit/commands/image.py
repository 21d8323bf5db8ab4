"""Build the container image and run the kit in it: detection, validation, training, a shell, the demo.

Run as:
    python scripts/kit image build --stack reference           (or: make image)
    python scripts/kit image train CONFIG key.path=value …     (or: make train-h100): checks host and image, then trains
    python scripts/kit image detect | validate | prove | shell | demo  (make detect IN=docker, …)
    python scripts/kit image check [--json]                    only check whether this machine can do that

Standard library only, and for Python 3.9 on: the host needs nothing but Docker. The image is rebuilt when its inputs
changed, which takes seconds unless a lock did.
Exit codes: 0 done, 1 a check or the run failed, 2 wrong use, 130 and 143 stopped, after a checkpoint where one trained.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

from kit.cli.console import fail, say
from kit.cli.failures import run_check
from kit.cli.findings import Finding, as_json, exit_code, has_errors, render, summary
from kit.cli.interpreter import PROJECT_ROOT as ROOT
from kit.cli.redaction import redact_argv
from kit.cli.screen import one_line
from kit.image import engine_rules as rules
from kit.image.build import (
    NAME,
    SOURCE_LABEL,
    Build,
    build_command,
    ca_bundle,
    remembered,
    source_digest,
)
from kit.image.container import Service, compose_variables, container_user, gpu_variable, prepare_folders, run_command
from kit.image.engine import Client, Engine, ask, probe
from kit.image.signals import run_passing_signals
from kit.stacks.registry import GENERATIONS, stack_run_on

_RUN = ("train", "validate", "detect", "prove", "shell", "demo")


def check(engine: Engine, command: str, stack: str) -> list[Finding]:
    """Judge the host for one command; ``check`` asks everything."""
    found = run_check(lambda: rules.check_machine(engine), "image.machine")
    needs_compose = command in {*_RUN, "check"}
    found += run_check(lambda: rules.check_engine(engine, needs_compose=needs_compose), "image.engine")
    if command in {"build", "check"}:
        found += run_check(lambda: rules.check_disk(engine, stack), "image.disk")
    if command in {"train", "check"}:
        found += run_check(lambda: rules.check_gpu(engine), "image.gpu")
        found += run_check(lambda: rules.check_access(engine), "image.access")
    return found


def revision() -> str:
    """Name the git revision, ``-dirty`` where a tracked file differs from it."""
    answer = ask(["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"])
    return answer.out if answer.code == 0 else "unknown"


def the_build(options: argparse.Namespace, engine: Engine) -> Build:
    """Put a build together from the command line and this machine."""
    wheel = options.flash_attn_wheel
    return Build(
        name=os.environ.get("KIT_IMAGE") or NAME,
        stack=options.stack,
        user=container_user((os.getuid(), os.getgid()), os.environ, is_rootless=engine.is_rootless),
        base_image=options.base_image,
        flash_attn_wheel=GENERATIONS[options.stack].flash_attn_wheel if wheel is None else wheel,
        flash_attn_sha256=options.flash_attn_sha256,
        network=options.network,
        ca_bundle=ca_bundle(os.environ),
        revision=revision(),
    )


def labels_of(client: Client, tag: str) -> dict[str, str]:
    """Read an image's labels; none where there is no such image."""
    answer = ask([client.path, "image", "inspect", "--format", "{{json .Config.Labels}}", tag])
    return dict(json.loads(answer.out) or {}) if answer.code == 0 and answer.out else {}


def id_of(client: Client, tag: str) -> str:
    """Read an image's id, ``sha256:…``; empty where the engine does not say."""
    answer = ask([client.path, "image", "inspect", "--format", "{{.Id}}", tag])
    return answer.out if answer.code == 0 else ""


def make_image(client: Client, build: Build) -> int:
    """Build, show the size, and return the exit code."""
    started = time.monotonic()
    say(f"building {build.tag}: minutes to download packages, seconds if only scripts changed", "bold")
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    code = subprocess.run(build_command(ROOT, build, client), cwd=ROOT, env=environment, check=False).returncode
    if code:
        say(f"error: {build.tag} was not built: see the failed step above", "red")
        say("  fix: an untrusted certificate: SSL_CERT_FILE=…; the registry is unreachable: BUILD_NETWORK=host;")
        say("       flash-attn's wheel is unavailable: FLASH_ATTN_WHEEL= leaves it out")
        return 1
    size = ask([client.path, "image", "inspect", "--format", "{{.Size}}", build.tag]).out
    gigabytes = f"{int(size) / 10**9:.2f} GB" if size.isdigit() else "of unknown size"
    print(f"{one_line(build.tag)} is ready: {gigabytes}, after {time.monotonic() - started:.0f} s")
    return 0


def run_service(options: argparse.Namespace, engine: Engine, client: Client, build: Build) -> int:
    """Have compose run the service; return the exit code of what ran inside."""
    prepare_folders(ROOT, build.user)
    with_gpu = options.command == "train" or (
        options.command != "demo" and bool(engine.gpus) and engine.has_nvidia_runtime
    )
    if options.command != "demo" and not with_gpu:
        say("running without a GPU: the engine cannot pass one to the container", "yellow")
    has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    # Unique on this host for as long as this process lives, and the container does not outlive it.
    container = f"{NAME}-{options.command}-{os.getpid()}"
    service = Service(
        options.command, options.arguments, with_gpu=with_gpu, has_terminal=has_terminal, container=container
    )
    command = run_command(ROOT, engine.compose, service)
    variables = compose_variables(build.name, build.stack, build.user, id_of(client, build.tag))
    environment = {**os.environ, **variables, **(gpu_variable(ROOT, os.environ) if with_gpu else {})}
    os.chdir(ROOT)
    sys.stdout.flush()
    if has_terminal:
        # The terminal belongs to the container: Ctrl-C is a key that it reads there.
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell
    return run_passing_signals(command, environment, client.path, container)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = stack_run_on("h100")
    parser.add_argument("--stack", choices=tuple(GENERATIONS), default=default, help="default: %(default)s")
    parser.add_argument("--base-image", default="", metavar="NAME", help="another base image, such as NAME@sha256:…")
    parser.add_argument("--flash-attn-wheel", metavar="URL", help="another wheel; empty leaves flash-attn out")
    parser.add_argument("--flash-attn-sha256", default="", metavar="HEX", help="the wheel's checksum")
    parser.add_argument("--network", default="", help="the build's network, such as host")
    parser.add_argument("--json", action="store_true", help="check: one JSON object on stdout")
    parser.add_argument("command", choices=("build", "check", *_RUN))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the command inside: CONFIG key.path=value …")


def run(options: argparse.Namespace) -> int:
    written = [*options.arguments, options.flash_attn_wheel or "", options.base_image]
    if redact_argv(written) != written:
        # Every user of the machine can read a command line, and a build's arguments stay in the image.
        return fail("a token or a password is on the command line", "put it into .env or the environment")
    engine = probe(ROOT)
    findings = check(engine, options.command, options.stack)
    if options.command == "check":
        print(as_json(findings)) if options.json else render(findings)
        return exit_code(findings)
    render([finding for finding in findings if finding.severity != "ok"], sys.stderr)
    if has_errors(findings) or engine.client is None:
        say(f"not started: {summary(findings)}. Fix the errors above, then run the same command again.", "red", "bold")
        return 1
    build = the_build(options, engine)
    labels = labels_of(engine.client, build.tag)
    if labels and options.command != "build":
        build = remembered(build, labels, wheel_given=options.flash_attn_wheel is not None)
    if options.command == "build" or labels.get(SOURCE_LABEL) != source_digest(ROOT, build):
        code = make_image(engine.client, build)
        if code or options.command == "build":
            return code
    return run_service(options, engine, engine.client, build)
