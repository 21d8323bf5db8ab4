"""Compare a run's code, stack, packages, lock, image and machine with those here.

A difference is a warning: it can change bits, but prevents nothing. Imports no torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from kit.cli.findings import Finding, ok, skipped, warning
from kit.config.platforms import CUDA_PLATFORMS
from kit.files.numbers import mapping
from kit.machine.cuda_order import chosen_of
from kit.machine.facts import Nvidia
from kit.machine.platforms import judge
from kit.machine.probe import probe
from kit.machine.recorded import rebuild
from kit.run_directory.provenance import describe_here, scripts_tree
from kit.stacks.stack import installed_stack

if TYPE_CHECKING:
    from collections.abc import Mapping

    Facts = Mapping[str, Any]

# Their versions can change a bit of what is computed; those of the others cannot.
_COMPUTES = re.compile(
    r"(torch|transformers|peft|trl|bitsandbytes|accelerate|flash-attn(-[34])?|quack-kernels|liger-kernel|triton|numpy"
    r"|safetensors|tokenizers|nvidia-(?!ml-py\Z).*)\Z"
)
# Mismatches that change no bit: packages are compared one by one.
_HARMLESS = frozenset({"reproduce.lock", "reproduce.other_packages", "reproduce.image", "reproduce.python"})
GPU_ORDER = "a GPU adds in varying order"
_REVISION = re.compile(r"[0-9a-f]{7,64}\Z")
_CHANGES = {True: "uncommitted changes", False: "no uncommitted change", None: "perhaps uncommitted changes"}


def can_change_bits(package: str) -> bool:
    """Tell whether another version of a package can change what a run computes."""
    return bool(_COMPUTES.match(package))


def provenance_here() -> dict[str, Any]:
    """Return what a run here would have in its receipt, as plain JSON."""
    machine = probe()
    here = {"machine": asdict(machine), "platform": judge(machine).platform, **describe_here(installed_stack())}
    return dict(json.loads(json.dumps(here)))


def compare_provenance(then: Facts, here: Facts) -> list[Finding]:
    """Compare a receipt with ``provenance_here``."""
    return [_code(then, here), *_stack(then, here), _lock(then, here), *_packages(then, here), *_machine(then, here)]


def reasons_for_other_bits(findings: list[Finding], *platforms: Any) -> list[str]:
    """Return why a rerun's bits may differ, from earlier findings and both platforms; empty where they must not."""
    reasons = [finding.message for finding in findings if finding.severity == "warning" and finding.id not in _HARMLESS]
    if set(map(str, platforms)) != {"cpu"}:
        reasons.append(GPU_ORDER)
    return reasons


def checkout(then: Facts) -> str:
    """Return the command that brings back a run's code; empty where the receipt does not name it."""
    revision = str(then.get("git_revision") or "").removesuffix("-dirty")
    return f"git checkout {revision[:12]}" if _REVISION.match(revision) else ""


def short(digest: str) -> str:
    """Shorten a hash."""
    return f"{digest[:12]}…" if len(digest) > 12 else digest  # noqa: PLR2004 - that much


def _code(then: Facts, here: Facts) -> Finding:
    name, was, now = "reproduce.code", then.get("git_revision"), here.get("git_revision")
    if not isinstance(was, str) or now is None:
        unknown = "the code's revision is unknown" if now is None else "the receipt has no revision"
        return warning(name, unknown, "use a git clone of the kit" if now is None else "")
    is_dirty = any(f"{side}".endswith("-dirty") for side in (was, now))  # an image's: it does not say with what
    same_changes = not is_dirty and then.get("git_diff_sha256") == here.get("git_diff_sha256")
    if not same_changes:
        mine, theirs = (_CHANGES.get(side.get("git_dirty")) for side in (here, then))
        others = ", but others" if mine == theirs else ""
        message = f"the code is revision {short(now)} with {mine}, was {short(was)} with {theirs}{others}"
        return warning(name, message, checkout(then))
    if was == now:
        return ok(name, f"revision {short(was)}{', with the same changes' if then.get('git_dirty') else ''}")
    message = f"the code is revision {short(now)}, was {short(was)}"
    if _REVISION.match(was) and (tree := scripts_tree(was)) and tree == scripts_tree("HEAD"):
        return ok(name, f"{message}; scripts/ is the same in both")
    return warning(name, message, checkout(then))


def _stack(then: Facts, here: Facts) -> list[Finding]:
    return [
        _compared("stack", then, here, f"make reproduce STACK={then.get('stack')} …"),
        _compared("python", then, here),
    ]


def _lock(then: Facts, here: Facts) -> Finding:
    was, now = mapping(then.get("lock")), mapping(here.get("lock"))
    if not was:
        return skipped("reproduce.lock", "the receipt has no lock")
    if (was.get("name"), was.get("sha256")) == (now.get("name"), now.get("sha256")):
        return ok("reproduce.lock", "is the same", str(was["name"]))
    return warning("reproduce.lock", "is not the run's lock", _install(then), str(was.get("name")))


def _install(then: Facts) -> str:
    return f"{checkout(then) or 'restore its lock'}, then: make setup STACK={then.get('stack')}"


def _packages(then: Facts, here: Facts) -> list[Finding]:
    was, now = (
        {canonicalize_name(str(name)): str(version) for name, version in mapping(side.get("packages")).items()}
        for side in (then, here)
    )
    differing = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    if not differing:
        return [ok("reproduce.packages", f"all {len(was)} packages have the same version")]
    found = []
    for id_, what, counts in (("packages", "that compute", True), ("other_packages", "that do not compute", False)):
        versions = [
            f"{name} {_now_and_before(now.get(name), was.get(name))}"
            for name in differing
            if can_change_bits(name) is counts
        ]
        several = f"{len(versions)} packages {what} differ: " if len(versions) > 1 else ""
        if versions:
            found.append(warning(f"reproduce.{id_}", f"{several}{'; '.join(versions)}", _install(then)))
    return found


def _machine(then: Facts, here: Facts) -> list[Finding]:
    was, now = mapping(then.get("machine")), mapping(here.get("machine"))
    found = [_compared("platform", then, here, "run it on a machine of that platform")]
    found += [_compared(key, was, now) for key in ("system", "arch", "cpu_model")]
    if str(then.get("platform")) in CUDA_PLATFORMS:
        found.append(_compared("GPU", {"GPU": gpu_of(was)}, {"GPU": gpu_of(now)}))
        found.append(_compared("driver_version", mapping(was.get("nvidia")), mapping(now.get("nvidia"))))
    if then.get("image") or here.get("image"):
        image, image_here = ({"image": mapping(side.get("image")).get("id") or "none"} for side in (then, here))
        found.append(_compared("image", image, image_here))
    return found


def gpu_of(machine: Facts) -> str | None:
    """Name the GPU of a recorded machine that a run uses; None where there is none, or the record does not tell."""
    try:
        gpu = chosen_of(rebuild(Nvidia, machine.get("nvidia"), "machine.nvidia"))
    except ValueError:  # edited by hand, or of another version
        return None
    return gpu.name if gpu else None


def _compared(key: str, then: Facts, here: Facts, fix: str = "") -> Finding:
    was, now, name = then.get(key), here.get(key), key.replace("_", " ")
    if was is None:
        return skipped(f"reproduce.{key}", f"the receipt has no {name}")
    if was == now:
        return ok(f"reproduce.{key}", f"{name}: {was}")
    return warning(f"reproduce.{key}", f"{name} {_now_and_before(now, was)}", fix)


def _now_and_before(now: Any, was: Any) -> str:
    return f"is {now or 'missing'}, was {was or 'missing'}"
