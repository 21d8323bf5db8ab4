"""Rules on Weights & Biases: enough to send the curves, and nothing that contradicts itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.findings import Finding, error, warning

if TYPE_CHECKING:
    from kit.checks.context import CheckContext


def wandb(run: CheckContext) -> list[Finding]:
    """Ask for a project and for the package where curves go to wandb."""
    if run.settings.training.report_to != "wandb":
        return []
    found, where = [], run.where("training.report_to")
    if run.settings.wandb.project is None:
        message = "training.report_to is wandb, but wandb.project is not set"
        fix = "wandb.project=NAME, or training.report_to=none"
        found.append(error("config.wandb.project", message, fix, run.where("wandb.project")))
    if run.is_installed and "wandb" not in run.stack.versions:
        message = "training.report_to is wandb, but wandb is not installed"
        found.append(error("config.wandb.missing", message, "make setup, or training.report_to=none", where))
    if run.settings.wandb.mode == "disabled":
        message = "training.report_to is wandb, but wandb.mode is disabled: nothing is recorded there"
        fix = "wandb.mode=online or offline, or training.report_to=none"
        found.append(warning("config.wandb.mode", message, fix, run.where("wandb.mode")))
    return found


def idle_wandb(run: CheckContext) -> list[Finding]:
    """Warn of a project that nothing is sent to."""
    settings = run.settings.wandb
    given = [key for key in ("project", "entity") if getattr(settings, key) is not None]
    if run.settings.training.report_to == "wandb" or not given:
        return []
    names = " and ".join(f"wandb.{key}" for key in given)
    message = f"{names}: no effect while training.report_to is none"
    return [warning("config.wandb.idle", message, "training.report_to=wandb", run.where(f"wandb.{given[0]}"))]
