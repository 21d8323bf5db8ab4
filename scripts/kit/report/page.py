"""The report's HTML page. Everything from a run is escaped."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from kit.cli.console import duration, gigabytes
from kit.cli.screen import visible
from kit.files.numbers import finite, listed, mapping
from kit.report.verdict import BAD, DOUBTFUL, GOOD, UNDER_WAY_TONE, loss_text

if TYPE_CHECKING:
    from kit.report.contents import Contents

_FOLDER = Path(__file__).parent
_TONES = {GOOD: "Good", DOUBTFUL: "Have a look", BAD: "Bad", UNDER_WAY_TONE: "Under way"}
_LONG = 80  # characters of a sample that want the page's whole width
_MAIN_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "tokenizers", "flash-attn")


def render_page(contents: Contents, charts: dict[str, str]) -> str:
    """Render one self-contained HTML page; a missing chart leaves a sentence."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        # Marks of direction would reorder a page too; Markup stays Markup.
        finalize=lambda value: Markup(visible(value)) if isinstance(value, Markup) else visible(str(value)),  # noqa: S704
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "gb": gigabytes,
        "duration": duration,
        "loss": loss_text,
        "when": _when,
        "percent": lambda share: f"{share:.0%}",
    }
    config = contents.summary.config
    environment.filters["short_origin"] = lambda origin: (
        f"line {origin[len(config) + 1 :]}" if config and origin.startswith(f"{config}:") else origin
    )
    return environment.get_template("page.html.j2").render(
        contents=contents,
        charts={name: Markup(svg) for name, svg in charts.items()},  # noqa: S704 - drawn here, its text escaped
        css=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        tone=_TONES[contents.verdict.tone],
        tiles=_tiles(contents),
        long_answers=any(
            len(text or "") > _LONG for sample in contents.answers.samples for text in (sample.prompt, sample.adapter)
        ),
        lengths_note=_lengths_note(contents),
        machine=_machine(contents),
        receipt=_receipt(contents),
        packages=_packages(contents),
        locks=sorted(mapping(contents.run.receipt.get("locks")).items()),
    )


def _when(text: str | None) -> str:
    """Write an ISO time as ``2026-11-23 14:29 UTC``; whatever is none stays as it is."""
    try:
        return datetime.fromisoformat(str(text)).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return str(text)


def _tiles(contents: Contents) -> list[tuple[str, str, str]]:
    """Return the figures at the top: name, value, remark."""
    summary, answers = contents.summary, contents.answers
    tiles = []
    if summary.loss is not None:
        tiles.append(("Training loss", _loss(summary.loss), "at the last step"))
    if summary.eval_loss is not None:
        lowest = summary.lowest_eval_loss
        perplexity = f"perplexity {math.exp(summary.eval_loss):,.2f}" if summary.eval_loss < 20 else "at the end"  # noqa: PLR2004 - e^20 says nothing
        is_lowest = lowest is None or not math.isfinite(summary.eval_loss) or summary.eval_loss <= lowest
        tiles.append(
            (
                "Validation loss",
                _loss(summary.eval_loss),
                perplexity if is_lowest else f"lowest {loss_text(lowest or 0)}",
            )
        )
    if answers.exact_match_adapter is not None:
        before = "" if answers.exact_match_base is None else f"{answers.exact_match_base:.0%} before"
        tiles.append(("Exact match", f"{answers.exact_match_adapter:.0%}", before))
    planned = f"of {summary.planned_steps:,}" if summary.planned_steps else ""
    tiles.append(("Steps", f"{summary.steps:,}", planned))
    if summary.seconds is not None:
        tiles.append(("Time", duration(summary.seconds), "loading and saving included"))
    if summary.tokens_per_second is not None:
        tiles.append(("Throughput", f"{summary.tokens_per_second:,.0f}", "tokens/s, over the run"))
    if summary.peak_memory_bytes is not None:
        where = "process" if contents.run.receipt.get("platform") == "cpu" else "device"
        tiles.append(("Peak memory", gigabytes(summary.peak_memory_bytes), f"of the {where}"))
    return tiles


def _lengths_note(contents: Contents) -> str:
    lengths = contents.lengths
    limit = finite(mapping(mapping(contents.run.receipt.get("config")).get("training")).get("max_seq_length"))
    if not lengths or limit is None:
        return ""
    cut = (
        "" if lengths.truncated is None else f", {lengths.truncated or 'none'} of them truncated at {limit:,.0f} tokens"
    )
    return f"{sum(lengths.counts):,.0f} training rows{cut}."


def _loss(value: float) -> str:
    return loss_text(value) if math.isfinite(value) else "NaN"


def _machine(contents: Contents) -> list[tuple[str, str]]:
    receipt = contents.run.receipt
    machine = mapping(receipt.get("machine"))
    gpus = mapping(machine.get("nvidia")).get("gpus")
    rows = [("platform", receipt.get("platform"))]
    for gpu in listed(gpus):
        memory = finite(mapping(gpu).get("memory_total_bytes"))
        rows.append(("GPU", f"{mapping(gpu).get('name')}{f', {gigabytes(memory)}' if memory else ''}"))
    rows += [
        ("driver", mapping(machine.get("nvidia")).get("driver_version")),
        ("chip", mapping(machine.get("apple")).get("chip")),
        ("processor", _processor(machine)),
        ("memory", _bytes(machine.get("memory_total_bytes"))),
        ("system", " ".join(str(machine[key]) for key in ("system", "arch") if machine.get(key))),
        ("container", {"True": "yes", "False": "no"}.get(str(machine.get("in_container")))),
        ("stack", receipt.get("stack")),
        ("attention", receipt.get("attention")),
        ("Python", receipt.get("python")),
        ("parity", contents.parity),
    ]
    rows += [(name, version) for name, version in _packages(contents) if name in _MAIN_PACKAGES]
    return [(name, str(value)) for name, value in rows if value]


def _processor(machine: dict[str, Any]) -> str | None:
    if not machine.get("cpu_model"):
        return None
    return f"{machine['cpu_model']}, {machine.get('cpu_count', '?')} cores"


def _bytes(value: Any) -> str | None:
    size = finite(value)
    return None if size is None else gigabytes(size)


def _receipt(contents: Contents) -> list[tuple[str, str]]:
    receipt = contents.run.receipt
    revision = receipt.get("git_revision")
    changes = {"True": ", with uncommitted changes", "False": ", unchanged"}.get(str(receipt.get("git_dirty")), "")
    rows = [
        ("folder", contents.run.folder),
        ("command", " ".join(str(part) for part in listed(receipt.get("argv")))),
        ("started", _when(receipt["started_at"]) if receipt.get("started_at") else None),
        ("ended", _when(receipt["ended_at"]) if receipt.get("ended_at") else None),
        ("sessions", _sessions(receipt)),
        ("code", f"{revision}{changes}" if revision else "not recorded"),
        ("seed", receipt.get("seed")),
        ("tokens trained on", f"{receipt['tokens']:,}" if isinstance(receipt.get("tokens"), int) else None),
    ]
    for file in listed(receipt.get("data")):
        entry = mapping(file)
        counts = [
            f"{entry[key]:,} {key.replace('_', ' ')}"
            for key in ("rows", "tokens", "trainable_tokens")
            if isinstance(entry.get(key), int)
        ]
        rows.append(("data", f"{entry.get('path')}: {', '.join(counts)}; SHA-256 {entry.get('sha256')}"))
    rows += [
        ("adapter before", receipt.get("adapter_init_sha256")),
        ("adapter after", receipt.get("adapter_sha256")),
        ("left out of its config", ", ".join(map(str, listed(receipt.get("left_out_of_adapter_config"))))),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _sessions(receipt: dict[str, Any]) -> str | None:
    """Tell where a run was resumed; None where it never was."""
    resumed = [mapping(session).get("from_step") for session in listed(receipt.get("sessions"))[1:]]
    return f"{len(resumed) + 1}, resumed from step {', '.join(map(str, resumed))}" if resumed else None


def _packages(contents: Contents) -> list[tuple[str, str]]:
    return sorted((str(name), str(version)) for name, version in mapping(contents.run.receipt.get("packages")).items())
