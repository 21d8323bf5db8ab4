"""Check access to the base model and Weights & Biases.

Pure functions over ``kit.environment.facts.Environment``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, ok, skipped, warning
from kit.environment.facts import NO_FOLDER
from kit.model.files import DEMO_BASE, download_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.config.settings import Settings
    from kit.environment.facts import Environment, ModelAccess

_GATED_FIX = "accept the model's terms on its page, then `hf auth login` or set HF_TOKEN"


def check_model(environment: Environment, settings: Settings | None = None) -> list[Finding]:
    """Check that the base model can be loaded; without a configuration problems are only warnings."""
    model = environment.model
    if model is None:
        return [skipped("environment.model", "no model to check")]
    severity = warning if settings is None else error
    if model.kind == "folder":
        return [_folder_finding(model, severity)]
    if model.is_cached and not model.missing_files:
        return [ok("environment.model", f"complete in the cache at {model.cache_directory}", model.name)]
    if model.is_offline:
        lacks = f"lacks {', '.join(model.missing_files)}" if model.missing_files else "is missing"
        message = f"HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, but the model {lacks} in {model.cache_directory}"
        command = download_command(model.name, settings.model.revision if settings else None)
        fix = f"`{command}` with a network first, or unset the variable"
        return [severity("environment.model_offline", message, fix, model.name)]
    return [_hub_finding(model, severity)]


def _folder_finding(model: ModelAccess, severity: Callable[..., Finding]) -> Finding:
    if not model.missing_files:
        return ok("environment.model", "a complete local folder", model.name)
    if model.name == DEMO_BASE and NO_FOLDER in model.missing_files:
        return skipped("environment.model", "the demo's first run makes this model", "make demo", model.name)
    message = f"the model folder lacks {', '.join(model.missing_files)}"
    fix = "copy the complete folder there (weights as safetensors), or correct model.model_name_or_path"
    return severity("environment.model_incomplete", message, fix, model.name)


def _hub_finding(model: ModelAccess, severity: Callable[..., Finding]) -> Finding:
    partly = ", partly downloaded" if model.is_cached else ""
    if model.hub_answer == "ok":
        return ok("environment.model", f"not cached yet; the Hub gives access{partly}", model.name)
    if model.hub_answer == "gated":
        token = "the token has no access" if model.has_token else "no token is set"
        message = f"the model is gated on the Hub, and {token}"
        return severity("environment.model_gated", message, _GATED_FIX, model.name)
    if model.hub_answer == "not_found":
        message = "the Hub has no such model (or it is private), and there is no such folder"
        fix = "correct model.model_name_or_path; for a private model, `hf auth login` or set HF_TOKEN"
        return severity("environment.model_not_found", message, fix, model.name)
    if model.hub_answer == "unreachable":
        message = f"no such folder, not cached{partly}, and the Hub is unreachable"
        fix = f"check the network and HTTPS_PROXY, or copy the model into {model.cache_directory}"
        return severity("environment.model_unreachable", message, fix, model.name)
    token = "a token is set" if model.has_token else "no token is set; a gated model needs one"
    return skipped("environment.model", f"not cached yet; the Hub was not asked ({token})", "", model.name)


def check_wandb(environment: Environment, settings: Settings | None = None) -> list[Finding]:
    """Check that a run that reports to wandb will not stop at a prompt."""
    access = environment.wandb
    if settings is None:
        logged_in = "a login was found" if access.login != "none" else "not logged in"
        return [skipped("environment.wandb", f"needed only with training.report_to=wandb ({logged_in})")]
    if settings.training.report_to != "wandb":
        return [ok("environment.wandb", "not used: training.report_to is none")]
    if "wandb" not in environment.installed:
        message = "training.report_to is wandb, but wandb is not installed"
        return [error("environment.wandb_missing", message, "make setup, or training.report_to=none")]
    # The configuration decides, but the variable can restrict wandb further.
    turned_down = access.mode if access.mode in {"offline", "disabled", "dryrun"} else ""
    mode = turned_down or settings.wandb.mode
    if mode != "online":
        return [ok("environment.wandb", f"{mode}: no login is needed")]
    if access.login == "none":
        message = "wandb.mode is online, but there is no login (WANDB_API_KEY, netrc)"
        return [error("environment.wandb_login", message, "`wandb login`, or wandb.mode=offline")]
    return [ok("environment.wandb", f"online, logged in through {access.login}")]


def check_access(environment: Environment, settings: Settings | None) -> list[Finding]:
    """Run both checks."""
    return [*check_model(environment, settings), *check_wandb(environment, settings)]
