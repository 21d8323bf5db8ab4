"""Judge a whole environment: what ``kit.environment`` finds of itself, and disk and memory against the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.console import gigabytes
from kit.cli.failures import run_check
from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.environment import checks
from kit.environment.access_checks import check_access
from kit.machine.planned import planned
from kit.machine.platforms import judge
from kit.model.shape import KNOWN_SHAPES, shape_of
from kit.plan.needs import loading_bytes, output_bytes, published_bytes

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.environment.facts import Environment
    from kit.model.shape import ModelShape

# A run of a model that nothing is known of writes more than this.
_SMALLEST_OUTPUT_BYTES = 1_000_000_000


def environment_findings(
    environment: Environment,
    settings: Settings | None = None,
    platform: str | None = None,
    *,
    with_access: bool = True,
) -> list[Finding]:
    """Run every check that applies.

    Without ``settings``, what depends on them is a warning or left out; ``with_access`` judges model, wandb, disk and
    memory too.
    """
    platform = platform or judge(environment.machine).platform
    found = checks.environment_findings(environment, settings, platform)
    if with_access:
        name = environment.model.name if environment.model else ""
        shape = shape_of(settings.model) if settings else KNOWN_SHAPES.get(name)
        found += run_check(lambda: check_access(environment, settings), "environment.access")
        found += run_check(lambda: check_space(environment, settings, platform, shape), "environment.space")
    return found


def check_space(
    environment: Environment, settings: Settings | None, platform: str, shape: ModelShape | None
) -> list[Finding]:
    """Judge disk and memory against what a run of this model writes and loads."""
    least, most = output_bytes(shape, settings) if settings and shape else (_SMALLEST_OUTPUT_BYTES,) * 2
    free = environment.output_disk_free_bytes
    fix = "free some space, or training.output_dir=<a folder on a larger disk>, or training.save_total_limit=1"
    found = [_space("environment.output_disk", "disk for the run directory", free, (least, most), fix)]
    model = environment.model
    if model is None:
        return found
    if not (model.kind == "folder" or (model.is_cached and not model.missing_files)):
        found.append(_download_space(environment, shape))
    if shape is not None:
        found += _memory(environment, shape, platform)
    return found


def _space(identity: str, what: str, free: int | None, needed: tuple[int, int], fix: str) -> Finding:
    """Judge free space against the least that is needed, and the most."""
    least, most = needed
    if free is None:
        return skipped(identity, f"{what}: the free space is unknown")
    up_to = f", up to {gigabytes(most)} by the end" if most > least else ""
    message = f"{what}: {gigabytes(free)} free, {gigabytes(least)} needed{up_to}"
    if free < least:
        return error(identity, message, fix)
    return ok(identity, message) if free >= most else warning(identity, message, fix)


def _download_space(environment: Environment, shape: ModelShape | None) -> Finding:
    identity, what = "environment.cache_disk", "disk for the model's download"
    if shape is None:
        return skipped(identity, f"{what}: the model's size is unknown until its config.json is downloaded")
    fix = "free some space, or set HF_HOME to a folder on a larger disk"
    return _space(identity, what, environment.cache_disk_free_bytes, (published_bytes(shape),) * 2, fix)


def _memory(environment: Environment, shape: ModelShape, platform: str) -> list[Finding]:
    memory = environment.machine.memory_total_bytes
    if memory is None or platform == "cpu":
        return []
    # On unified memory the run has to fit beside what passes through.
    needed = loading_bytes(shape) + (planned("m4").device_bytes if platform == "m4" else 0)
    if memory >= needed:
        return [ok("environment.memory", f"{gigabytes(memory)} of memory")]
    size = f"a model of {shape.parameters / 1e9:.1f} B parameters"
    message = f"{gigabytes(memory)} of memory; loading {size} needs {gigabytes(needed)}"
    fix = "close other programs and watch for swapping, or use a machine with more memory"
    return [warning("environment.memory", message, fix)]
