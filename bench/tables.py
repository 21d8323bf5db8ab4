"""What is known of a GPU, as tables and sentences: for a terminal, and for the documentation. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.known import speed_names, variant_of
from bench.memory_cases import case_names
from kit.stacks.registry import DEFAULT, GENERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.known import Device

_GB = 1e9


def speed_table(device: Device, workload: str) -> list[str]:
    """Write one workload's speeds as a Markdown table."""
    lines = [
        "| variant | tokens/s | ms a step | times trl | of ceiling | allocated / reserved GB | J a token | attention |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name in speed_names(device, workload):
        shown = variant_of(name)
        found = device.result(name)
        if found is None:
            lines.append(f"| {shown} | {device.why_not(name)} | | | | | | |")
            continue
        rate, plain, ceiling = found["tokens_per_second"], device.baseline(workload), device.ceiling()
        peak, reserved, joules = (found.get(key) for key in ("peak_memory_bytes", "reserved_memory_bytes", "joules"))
        cells = [
            f"{rate:,.0f}",
            f"{found['milliseconds_per_step']:,.0f}",
            f"{rate / plain:.2f}" if plain else "",
            f"{rate / ceiling:.0%}" if ceiling else "",
            f"{peak / _GB:.1f} / {reserved / _GB:.1f}" if peak and reserved else "",
            f"{joules / found['timed_tokens']:.3f}" if joules else "",
            str(found.get("attention", "")),
        ]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return lines


def memory_table(device: Device) -> list[str]:
    """Write planned against measured, a line a configuration."""
    lines = [
        "| configuration | planned GB | allocated GB | off by | reserved GB | whole device GB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for case in case_names(GENERATIONS[DEFAULT].traits, on_gpu=True):
        name = f"memory/{case}"
        found = device.result(name)
        if found is None:
            lines.append(f"| {_case_words(case)} | {device.why_not(name)} | | | | |")
            continue
        peak = found["peak_bytes"]
        off = peak["predicted"] / peak["measured"] - 1
        figures = (peak["predicted"], peak["measured"], found["reserved_bytes"], found["device_used_bytes"])
        planned, measured, reserved, used = (f"{value / _GB:.2f}" for value in figures)
        lines.append(f"| {_case_words(case)} | {planned} | {measured} | {off:+.1%} | {reserved} | {used} |")
    return lines


def _case_words(case: str) -> str:
    """Write a case's name as a person says it."""
    size, every, *rest = case.split(", ")
    if "training.gradient_checkpointing=True" in rest:
        rest.remove("training.gradient_checkpointing=True")
        number = every.removeprefix("every ")
        checkpoints = "all layers checkpointed" if number == "1" else f"every {number} layers checkpointed"
    else:
        checkpoints = "no checkpoints"
    words = [" ".join([item.partition("=")[0].split(".")[-1], item.partition("=")[2]]).strip() for item in rest]
    return ", ".join([size, checkpoints, *words])


def profile_lines(device: Device, workload: str) -> list[str]:
    """Say what a step's time went into, largest first."""
    found = device.result(f"profile/{workload}")
    if found is None:
        return [f"{workload} rows: {device.why_not(f'profile/{workload}')}."]
    shares = sorted(found["groups"].items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares)
    return [f"{workload} rows, {found['variant']}: {parts}."]


def other_lines(device: Device) -> list[str]:
    """Say what was measured besides steps: the ceiling, CUDA itself, parity, loading, use, a first run."""
    return [f"- {_OTHERS[kind][0]}: {_other(device, kind)}" for kind in _OTHERS]


def _other(device: Device, kind: str) -> str:
    found = device.result(kind)
    return device.why_not(kind) if found is None else _OTHERS[kind][1](found)


def _first_run(found: dict[str, Any]) -> str:
    apart, seconds = found["adapters"], found["seconds"]
    same = "equal bit for bit" if apart["equal"] else f"differ by {apart['largest_difference']:.1e} at most"
    took = ", ".join(f"{name} {spent:.0f} s" for name, spent in seconds.items())
    return f"adapters {same} (largest weight {apart['largest_weight']:.1e}); {took}"


def _generation(found: dict[str, Any]) -> str:
    one, eight = (found[f"at_once_{number}"]["tokens_per_second"] for number in (1, 8))
    return f"{one:,.0f} tokens/s for one prompt, {eight:,.0f} for a batch of eight"


_OTHERS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "ceiling": (
        "one large matrix product, and a memory copy",
        lambda found: (
            f"{found['matmul_flop_per_second'] / 1e12:,.0f} TFLOP/s, {found['copy_bytes_per_second'] / 1e12:.2f} TB/s"
        ),
    ),
    "base": (
        "the CUDA context, outside torch's allocator",
        lambda found: (
            f"{found['context_bytes'] / _GB:.2f} GB when started, "
            f"{found['context_with_blas_bytes'] / _GB:.2f} GB with BLAS"
        ),
    ),
    "parity": ("the formulas of `make parity`", lambda found: found["sentences"][0]),
    "loading": (
        "a 7B base from safetensors to 4 bits",
        lambda found: f"{found['load_seconds']:.0f} s, {found['peak_memory_bytes'] / _GB:.1f} GB at most",
    ),
    "evaluation": ("evaluation on validation rows", lambda found: f"{found['tokens_per_second']:,.0f} tokens/s"),
    "generation": ("generation", _generation),
    "first run": ("a run stopped half-way and resumed, against an uninterrupted one", _first_run),
}


def where_lines(device: Device) -> list[str]:
    """Say where, with what, when and from which code the newest measurements were taken."""
    said = []
    for record in device.records.values():
        place = record.place
        names = ("torch", "transformers", "trl", "peft", "bitsandbytes")
        versions = ", ".join(f"{name} {place.versions[name]}" for name in names if name in place.versions)
        driver = f", driver {place.driver}" if place.driver else ""
        revision = (record.commit.get("git_revision") or "unknown")[:7]
        changed = ", uncommitted changes" if record.commit.get("git_dirty") else ""
        said.append(f"{place.device}{driver}; {versions}; {record.date[:10]}, commit {revision}{changed}")
    return [f"{line}." for line in dict.fromkeys(said)]


def draw(device: Device, path: Path) -> None:
    """Draw tokens a second as bars, a panel for each workload."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(12, 5), squeeze=False)
    for panel, workload in zip(panels[0], ("full", "ragged"), strict=True):
        found = [
            (variant_of(name), result["tokens_per_second"])
            for name in speed_names(device, workload)
            if (result := device.result(name))
        ][::-1]
        panel.barh(range(len(found)), [rate for _, rate in found])
        panel.set_yticks(range(len(found)), [name for name, _ in found])
        panel.set_xlabel("tokens a second")
        panel.set_title(f"{workload} rows")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
