"""Checks on installed versions: minimums, incompatible pairs, and the lock.

Pure functions over ``kit.environment.facts.Environment``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.stacks.generation import dotted, version_tuple
from kit.stacks.registry import make_argument
from kit.stacks.stack import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.environment.facts import Environment

    Version = tuple[int, ...]

MINIMUM_TRANSFORMERS = (4, 36)
# accelerate: the minimum of transformers 4.36's Trainer.
MINIMUMS: dict[str, Version] = {
    "torch": (2, 1),
    "peft": (0, 7),
    "trl": (0, 7),
    "bitsandbytes": (0, 41),
    "accelerate": (0, 21),
}
PYTHON = (3, 11)
_ABSENT: Version = ()
_NAMED = 6  # packages in one sentence


def setup_command(environment: Environment) -> str:
    """Return the command that reinstalls the environment from its lock."""
    return f"make setup{make_argument(environment.stack.traits.name)}"


def check_minimum(environment: Environment, package: str, minimum: Version) -> Finding:
    """Compare an installed version with the minimum; a missing package is an error too."""
    identity = f"environment.{package}_version"
    installed = environment.installed.get(package)
    fix = setup_command(environment)
    if installed is None:
        return error(f"environment.{package}_missing", f"{package} is not installed (needed: {dotted(minimum)}+)", fix)
    if version_tuple(installed) < minimum:
        return error(identity, f"{package} {installed} is installed; {dotted(minimum)} or later is needed", fix)
    return ok(identity, f"{package} {installed} ({dotted(minimum)} or later is needed)")


def check_python(environment: Environment) -> list[Finding]:
    """Compare Python with the locks' version; the current trl needs 3.11 too."""
    python = environment.machine.python_version
    if version_tuple(python)[:2] == PYTHON:
        return [ok("environment.python", f"Python {python}")]
    severity = error if version_tuple(python) < PYTHON else warning
    message = f"Python {python}; the locks are for {dotted(PYTHON)}"
    return [severity("environment.python", message, setup_command(environment))]


def check_import(environment: Environment, package: str) -> list[Finding]:
    """Report an installed package that does not import, with its error."""
    problem = environment.probe.import_error(package)
    if not problem or package not in environment.installed:
        return []
    message = f"{package} {environment.installed[package]} does not import: {problem}"
    return [error("environment.import_failed", message, setup_command(environment), package)]


@dataclass(frozen=True)
class BadPair:
    """Versions that a resolver accepts together but a run does not."""

    id: str
    packages: tuple[str, str]
    breaks: Callable[[Version, Version], bool]  # of both versions, () where absent
    reason: str
    fix: str


# Each was seen in a real environment unless its comment says otherwise.
BAD_PAIRS = (
    BadPair(
        "torch_too_old_for_transformers",
        ("torch", "transformers"),
        # 2.4.1 was seen with 5.20; 2.6 is what transformers 5.23 compares with in is_torch_available().
        lambda torch, transformers: _ABSENT < torch < (2, 6) and transformers >= (5, 20),
        "transformers ignores this torch: is_torch_available() is False",
        "torch 2.6 or later, as in the lock",
    ),
    BadPair(
        "accelerate_too_new_for_transformers",
        ("accelerate", "transformers"),
        lambda accelerate, transformers: accelerate >= (1,) and transformers[:2] == (4, 36),
        "accelerate 1.0 removed `dispatch_batches`, which this transformers passes: every trainer fails to build",
        "accelerate 0.25.0",
    ),
    BadPair(
        "numpy_too_new_for_torch",
        ("numpy", "torch"),
        # 2.3 is the first torch compiled against numpy 2 (its release notes); 2.1 was seen.
        lambda numpy, torch: numpy >= (2,) and _ABSENT < torch < (2, 3),
        "this torch was compiled against numpy 1: tensors and arrays no longer convert",
        "numpy<2",
    ),
    BadPair(
        "pyarrow_too_new_for_numpy",
        ("pyarrow", "numpy"),
        lambda pyarrow, numpy: pyarrow >= (25,) and _ABSENT < numpy < (2,),
        "pyarrow 25 needs numpy 2, so datasets and trl do not import",
        "pyarrow<25",
    ),
    BadPair(
        "setuptools_too_new_for_triton",
        ("setuptools", "triton"),
        lambda setuptools, triton: setuptools >= (81,) and triton[:2] == (2, 1),
        "triton 2.1 imports pkg_resources, which setuptools 81 removed",
        "setuptools<81",
    ),
    BadPair(
        "setuptools_missing_for_triton",
        ("setuptools", "triton"),
        lambda setuptools, triton: setuptools == _ABSENT and triton[:2] == (2, 1),
        "triton 2.1 imports setuptools without declaring it",
        "setuptools<81",
    ),
    BadPair(
        "scipy_missing_for_bitsandbytes",
        ("scipy", "bitsandbytes"),
        lambda scipy, bitsandbytes: scipy == _ABSENT and bitsandbytes[:2] == (0, 41),
        "bitsandbytes 0.41 imports scipy without declaring it",
        "scipy",
    ),
)


def check_known_bad_pairs(environment: Environment) -> list[Finding]:
    """Report every installed pair of versions that is known to fail together."""
    installed = environment.installed
    found = []
    for pair in BAD_PAIRS:
        first, second = (version_tuple(installed.get(package, "")) for package in pair.packages)
        if pair.breaks(first, second):
            named = " with ".join(
                f"{package} {installed[package]}" if package in installed else f"no {package}"
                for package in pair.packages
            )
            fix = f"{setup_command(environment)}, or install by hand: {pair.fix}"
            found.append(error(f"environment.{pair.id}", f"{named}: {pair.reason}", fix, pair.packages[0]))
    return found or [ok("environment.known_bad_pairs", "no known incompatible pairs")]


def _differs(installed: str | None, locked: str) -> bool:
    # Wheels have a local part, such as 2.1.0+cu121, which a lock omits.
    return installed is None or (installed != locked and installed.split("+", maxsplit=1)[0] != locked)


def check_lock(environment: Environment) -> list[Finding]:
    """Report each package that differs from the lock: one finding per package of the stack, one for the rest."""
    lock = environment.lock
    if lock is None:
        return [skipped("environment.lock", "not checked: no complete stack is installed")]
    installed = environment.installed
    drifted = [(name, installed.get(name), locked) for name, locked in sorted(lock.versions.items())]
    drifted = [entry for entry in drifted if _differs(entry[1], entry[2])]
    if not drifted:
        return [ok("environment.lock", f"all {len(lock.versions)} packages are as locked", lock.name)]
    fix = setup_command(environment)
    found = [
        warning(
            "environment.version_drift",
            f"{name} is {was or 'not installed'}, locked {locked}: results may differ from other machines",
            fix,
            lock.name,
        )
        for name, was, locked in drifted
        if name in PACKAGES
    ]
    rest = [f"{name} {was or 'missing'} (locked {locked})" for name, was, locked in drifted if name not in PACKAGES]
    if rest:
        kinds = "package is" if len(rest) == 1 else "packages are"
        named = ", ".join(rest[:_NAMED]) + (f" and {len(rest) - _NAMED} more" if len(rest) > _NAMED else "")
        message = f"{len(rest)} other {kinds} not as locked: {named}"
        found.append(warning("environment.version_drift", message, fix, lock.name))
    return found
