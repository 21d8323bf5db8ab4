"""What an NVIDIA or Apple GPU needs: driver, build of torch, native libraries, attention.

Pure functions over ``kit.environment.facts.Environment``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.environment import version_checks as versions
from kit.machine.cuda_order import chosen_of
from kit.machine.rules import OLDEST_MACOS
from kit.stacks.generation import dotted, version_tuple

if TYPE_CHECKING:
    from kit.environment.facts import Environment

OLDEST_CUDA = (12, 1)
# The oldest Linux driver for each CUDA major release; minor releases run on it (NVIDIA, "CUDA Compatibility").
OLDEST_DRIVERS = {12: (525, 60, 13), 13: (580, 65, 6)}
OLDEST_MPS_TORCH = (2, 14)
OLDEST_MPS_BITSANDBYTES = (0, 50)
_NOT_ASKED = "not checked: the device probe did not reach torch"


def check_imports_h100(environment: Environment) -> list[Finding]:
    """Check what an NVIDIA GPU needs: a driver, CUDA 12.1+, a torch that sees it, CUDA in bitsandbytes, flash-attn."""
    nvidia = environment.machine.nvidia
    found = []
    gpu = chosen_of(nvidia)
    if gpu:
        found.append(ok("environment.gpu", f"{gpu.name}, driver {nvidia.driver_version or 'unknown'}"))
    else:
        fix = "`nvidia-smi` must list the GPU; in a container, start it with `--gpus all`"
        found.append(error("environment.gpu", nvidia.problem or "no NVIDIA GPU is visible to this process", fix))
    return [*found, *_torch_cuda(environment), *_bitsandbytes_cuda(environment), *check_flash_attention(environment)]


def _torch_cuda(environment: Environment) -> list[Finding]:
    probe, setup = environment.probe, versions.setup_command(environment)
    if "torch" not in environment.installed:
        return [versions.check_minimum(environment, "torch", versions.MINIMUMS["torch"])]
    if probe.fact("cuda_available") is None:
        return [skipped("environment.torch_cuda", _NOT_ASKED)]
    built = probe.fact("cuda_version")
    if built is None:
        message = f"torch {environment.installed['torch']} was built without CUDA and cannot use the GPU"
        return [error("environment.torch_without_cuda", message, setup)]
    if version_tuple(built) < OLDEST_CUDA:
        message = f"torch was built for CUDA {built}; {dotted(OLDEST_CUDA)} or later is needed"
        return [error("environment.cuda_version", message, setup)]
    if probe.fact("cuda_available"):
        sees = f"torch {environment.installed['torch']} (CUDA {built}) sees {probe.fact('device_name')}"
        return [ok("environment.torch_cuda", sees)]
    return [_why_no_gpu(environment, built)]


def _why_no_gpu(environment: Environment, built: str) -> Finding:
    driver = environment.machine.nvidia.driver_version
    oldest = OLDEST_DRIVERS.get(version_tuple(built)[0])
    if driver and oldest and version_tuple(driver) < oldest:
        message = (
            f"the NVIDIA driver is {driver}; torch's CUDA {built} needs {dotted(oldest)} or later, so torch sees no GPU"
        )
        fix = f"update the driver to {oldest[0]} or later (in a container: the host's driver)"
        return error("environment.driver_too_old", message, fix)
    message = f"torch {environment.installed['torch']} (CUDA {built}) sees no GPU"
    fix = "check `nvidia-smi`, CUDA_VISIBLE_DEVICES and, in a container, `--gpus all`"
    return error("environment.cuda_unavailable", message, fix)


def _bitsandbytes_cuda(environment: Environment) -> list[Finding]:
    library = environment.probe.fact("bitsandbytes_library")
    if library is None:
        return []  # missing or not importable: check_training_dependencies says so
    if "cuda" in library and not library.startswith("none"):
        return [ok("environment.bitsandbytes_library", f"bitsandbytes loads its CUDA library, {library}")]
    message = f"bitsandbytes does not load its CUDA library ({library}): no 4-bit on the GPU"
    # bitsandbytes 0.41.0 loads its CPU library if and only if torch.cuda.is_available() is False (evaluate_cuda_setup);
    # later ones if the library for torch's CUDA is missing or does not load.
    setup = versions.setup_command(environment)
    fix = f"make torch see the GPU; if it does: {setup}, then check `python -m bitsandbytes`"
    return [error("environment.bitsandbytes_library", message, fix)]


def check_flash_attention(environment: Environment, asked: str = "auto") -> list[Finding]:
    """Check flash-attn for the attention that the configuration asks for."""
    identity = "environment.flash_attention"
    installed = environment.installed.get("flash-attn")
    if installed is not None:
        problem = environment.probe.import_error("flash_attn")
        if problem:
            message = f"flash-attn {installed} does not import, which can break transformers: {problem}"
            fix = "install the wheel made for this torch, or `pip uninstall flash-attn`"
            return [error(identity, message, fix)]
        return [ok(identity, f"flash-attn {installed}")]
    fix = "`pip install flash-attn --no-build-isolation` (without a fitting wheel it compiles for hours)"
    if asked == "flash_attention_2":
        message = "model.attn_implementation is flash_attention_2, but flash-attn is not installed"
        return [error(identity, message, f"{fix}, or model.attn_implementation=auto")]
    if environment.stack.traits.plain_attention == "eager":
        # 32 heads x 4096 x 4096 scores x 2 bytes = 1.07 GB.
        message = (
            "flash-attn is not installed, so this stack uses eager attention: slower, with the whole score matrix in "
            "memory (1.07 GB per row and layer at 4096 tokens)"
        )
        return [warning(identity, message, f"{fix}, or STACK=current, whose SDPA needs no flash-attn")]
    return [ok(identity, "flash-attn is not installed and not needed: this stack uses SDPA")]


def check_imports_m4(environment: Environment) -> list[Finding]:
    """Check what Apple silicon needs: a native Python, macOS 14, MPS, a torch that is right on MPS, 4-bit."""
    apple, setup = environment.machine.apple, versions.setup_command(environment)
    if apple is None or not apple.is_apple_silicon:
        message = f"not an Apple silicon machine ({environment.machine.system} {environment.machine.arch})"
        return [error("environment.apple_silicon", message, "run this on the Mac itself, outside a container")]
    found = [ok("environment.apple_silicon", apple.chip)]
    if apple.is_rosetta:
        message = "this Python is an x86-64 build under Rosetta and sees no MPS"
        found = [error("environment.apple_silicon", message, f"install an arm64 Python 3.11, then {setup}")]
    if apple.macos_version is not None and apple.macos_version < OLDEST_MACOS:
        message = f"macOS {dotted(apple.macos_version)}; 14 or later is needed for bf16 and 4-bit on MPS"
        found.append(error("environment.macos_version", message, "update macOS to 14 or later"))
    found.extend(_torch_mps(environment))
    bitsandbytes = environment.installed.get("bitsandbytes")
    if bitsandbytes is not None and version_tuple(bitsandbytes) < OLDEST_MPS_BITSANDBYTES:
        message = (
            f"bitsandbytes {bitsandbytes} has no 4-bit on a Mac; 0.50 or later is needed (a resolver silently takes "
            "0.42 unless it resolves for macOS 14)"
        )
        found.append(error("environment.bitsandbytes_mps", message, setup))
    return found


def _torch_mps(environment: Environment) -> list[Finding]:
    probe, setup = environment.probe, versions.setup_command(environment)
    torch = environment.installed.get("torch")
    if torch is None:
        return [versions.check_minimum(environment, "torch", versions.MINIMUMS["torch"])]
    found = []
    if version_tuple(torch) < OLDEST_MPS_TORCH:
        message = (
            f"torch {torch} computes wrongly on MPS; 2.14 or later is needed: 2.7 to 2.13 multiply transposed float32 "
            "matrices wrongly (pytorch#193487), 2.11 to 2.12 leak future tokens in causal attention (pytorch#195910)"
        )
        found.append(error("environment.torch_mps_version", message, setup))
    else:
        found.append(ok("environment.torch_mps_version", f"torch {torch} (2.14 or later is right on MPS)"))
    built, available = probe.fact("mps_built"), probe.fact("mps_available")
    if available is None:
        found.append(skipped("environment.mps", _NOT_ASKED))
    elif not built:
        found.append(error("environment.mps", "torch was built without MPS", setup))
    elif not available:
        message = "torch was built with MPS but reports it unavailable"
        fix = "use macOS 14 or later and an arm64 Python, outside virtual machines and containers"
        found.append(error("environment.mps", message, fix))
    else:
        found.append(ok("environment.mps", "torch sees the GPU through MPS"))
    return found
