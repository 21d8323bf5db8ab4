"""Judge what an environment may reach: the base model, Weights & Biases, disk and memory.

Pure functions over ``kit.environment.facts.Environment``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.environment.facts import NO_FOLDER
from kit.findings import Finding, error, ok, skipped, warning
from kit.model.files import DEMO_BASE, download_command

if TYPE_CHECKING:
    from kit.config.settings import Settings
    from kit.environment.facts import Environment, ModelAccess

GB = 1_000_000_000
# Mistral-7B: 7.24 billion parameters in bf16, as published in safetensors.
MISTRAL_7B_BYTES = 14_500_000_000
# A checkpoint of LoRA r=16 on all linears: 41.9 million parameters in float32, and two Adam moments each.
CHECKPOINT_BYTES_PER_RANK = 41_900_000 * 12 // 16
SMALLEST_OUTPUT_BYTES = GB
# The largest file of Mistral-7B is 9.9 GB; on unified memory the 4-bit run itself has to fit as well.
MEMORY_BYTES = {"h100": 16 * GB, "cuda": 16 * GB, "m4": 24 * GB}
_GATED_FIX = "accept the model's terms on its page, then `hf auth login` or set HF_TOKEN"


def is_seven_billion(name: str) -> bool:
    """Tell by its name whether a model has the size this kit's figures are for."""
    return "7b" in name.lower()


def check_model(environment: Environment, settings: Settings | None = None) -> list[Finding]:
    """Judge whether the base model can be loaded; without a configuration nothing here is more than a warning."""
    model = environment.model
    if model is None:
        return [skipped("environment.model", "no model was asked about")]
    severity = warning if settings is None else error
    if model.kind == "folder":
        return [_folder_finding(model, is_configured=settings is not None)]
    if model.is_cached and not model.missing_files:
        return [ok("environment.model", f"complete in the cache at {model.cache_directory}", model.name)]
    if model.is_offline:
        lacks = f"lacks {', '.join(model.missing_files)}" if model.missing_files else "is not there"
        message = f"HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, and the model {lacks} in {model.cache_directory}"
        command = download_command(model.name, settings.model.revision if settings else None)
        fix = f"`{command}` with a network first, or unset the variable"
        return [severity("environment.model_offline", message, fix, model.name)]
    return [_hub_finding(model, is_configured=settings is not None)]


def _folder_finding(model: ModelAccess, *, is_configured: bool) -> Finding:
    if not model.missing_files:
        return ok("environment.model", "a complete local folder", model.name)
    if model.name == DEMO_BASE and NO_FOLDER in model.missing_files:
        return skipped("environment.model", "the demo makes this model on its first run", "make demo", model.name)
    message = f"the model folder lacks {', '.join(model.missing_files)}"
    fix = "copy the model's complete folder there (weights as safetensors), or correct model.model_name_or_path"
    severity = error if is_configured else warning
    return severity("environment.model_incomplete", message, fix, model.name)


def _hub_finding(model: ModelAccess, *, is_configured: bool) -> Finding:
    severity = error if is_configured else warning
    partly = ", partly downloaded so far" if model.is_cached else ""
    if model.hub_answer == "ok":
        return ok("environment.model", f"not cached yet; the Hub gives access{partly}", model.name)
    if model.hub_answer == "gated":
        token = "the token that is set has no access" if model.has_token else "no token is set"
        return severity(
            "environment.model_gated", f"the model is gated on the Hub, and {token}", _GATED_FIX, model.name
        )
    if model.hub_answer == "not_found":
        message = "the Hub knows no such model (or it is private), and there is no such folder"
        fix = "correct model.model_name_or_path; for a private model, `hf auth login` or set HF_TOKEN"
        return severity("environment.model_not_found", message, fix, model.name)
    if model.hub_answer == "unreachable":
        message = f"there is no such folder, it is not cached{partly}, and the Hub could not be reached"
        fix = f"check the network and HTTPS_PROXY, or put the model into {model.cache_directory} from elsewhere"
        return severity("environment.model_unreachable", message, fix, model.name)
    token = "a token is set" if model.has_token else "no token is set, which a gated model needs"
    return skipped("environment.model", f"not cached yet; the Hub was not asked ({token})", "", model.name)


def check_wandb(environment: Environment, settings: Settings | None = None) -> list[Finding]:
    """Judge whether a run that reports to wandb can start without a prompt in the middle of it."""
    access = environment.wandb
    if settings is None:
        logged_in = "a login was found" if access.login != "none" else "not logged in"
        return [skipped("environment.wandb", f"needed only with training.report_to=wandb ({logged_in})")]
    if settings.training.report_to != "wandb":
        return [ok("environment.wandb", "not used: training.report_to is none")]
    if "wandb" not in environment.installed:
        message = "training.report_to is wandb, and wandb is not installed"
        return [error("environment.wandb_missing", message, "make setup, or training.report_to=none")]
    # The configuration is asked first by the kit; the variable decides only where it turns wandb down.
    turned_down = access.mode if access.mode in {"offline", "disabled", "dryrun"} else ""
    mode = turned_down or settings.wandb.mode
    if mode != "online":
        return [ok("environment.wandb", f"{mode}: no login is needed")]
    if access.login == "none":
        message = "wandb.mode is online, and no login was found (WANDB_API_KEY, netrc): nothing could be sent"
        return [error("environment.wandb_login", message, "`wandb login`, or wandb.mode=offline")]
    return [ok("environment.wandb", f"online, logged in through {access.login}")]


def _space(identity: str, what: str, free: int | None, needed: int, fix: str) -> Finding:
    if free is None:
        return skipped(identity, f"{what}: the free space could not be found out")
    if free < needed:
        return error(identity, f"{what}: {free / GB:.1f} GB free, {needed / GB:.1f} GB needed", fix)
    if free < 2 * needed:
        return warning(
            identity, f"{what}: {free / GB:.1f} GB free is little above the {needed / GB:.1f} GB needed", fix
        )
    return ok(identity, f"{what}: {free / GB:.1f} GB free, {needed / GB:.1f} GB needed")


def check_space(environment: Environment, settings: Settings | None, platform: str) -> list[Finding]:
    """Judge disk and memory against what a run of this model writes and loads."""
    model = environment.model
    is_large = model is not None and is_seven_billion(model.name)
    rank, kept = (16, 3) if settings is None else (settings.lora.r, settings.training.save_total_limit)
    # One more than is kept: the new checkpoint is written before the oldest goes; and the adapter beside them.
    checkpoints = (kept + 2) * rank * CHECKPOINT_BYTES_PER_RANK if is_large else 0
    found = [
        _space(
            "environment.output_disk",
            "disk for the run's output",
            environment.output_disk_free_bytes,
            max(SMALLEST_OUTPUT_BYTES, checkpoints),
            "free some, or training.output_dir=<a folder on a larger disk>",
        )
    ]
    has_model = model is not None and (model.kind == "folder" or (model.is_cached and not model.missing_files))
    if is_large and not has_model:
        fix = "free some, or set HF_HOME to a folder on a larger disk"
        free = environment.cache_disk_free_bytes
        found.append(_space("environment.cache_disk", "disk for the model's download", free, MISTRAL_7B_BYTES, fix))
    memory, needed = environment.machine.memory_total_bytes, MEMORY_BYTES.get(platform)
    if is_large and needed is not None and memory is not None:
        if memory < needed:
            message = f"{memory / GB:.0f} GB of memory; loading a 7B model wants {needed / GB:.0f} GB"
            fix = "close other programs and watch the swap, or use a machine with more memory"
            found.append(warning("environment.memory", message, fix))
        else:
            found.append(ok("environment.memory", f"{memory / GB:.0f} GB of memory"))
    return found


def check_access(environment: Environment, settings: Settings | None, platform: str) -> list[Finding]:
    """Run every check in here."""
    return [
        *check_model(environment, settings),
        *check_wandb(environment, settings),
        *check_space(environment, settings, platform),
    ]
