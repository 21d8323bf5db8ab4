"""The ledger as tables and sentences: for a terminal, and for the documentation. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.bench.measurements import AGAIN, measurements
from kit.bench.variants import BASELINE, SCALES, flop_per_token
from kit.bench_data.measure import Run
from kit.bench_data.table import table
from kit.budget.cases import case_names
from kit.records.ledger import newest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from kit.records.ledger import Record

NOT_MEASURED = "not measured"
WITHIN = 0.05
_CEILING_GOAL, _FULL_GOAL, _RAGGED_GOAL = 0.6, 2.0, 3.0
_GB = 1e9


@dataclass(frozen=True)
class Device:
    """All that is known of one device at one scale.

    Attributes:
        name: The device's.
        scale: ``7b`` or ``small``.
        records: The newest of each measurement, by name.
    """

    name: str
    scale: str
    records: dict[str, Record]

    def result(self, name: str) -> dict[str, Any] | None:
        """Return a measurement's figures; None where there are none."""
        record = self.records.get(name)
        return None if record is None or "failed" in record.result else record.result

    def why_not(self, name: str) -> str:
        """Say why there are none."""
        record = self.records.get(name)
        return NOT_MEASURED if record is None else f"{NOT_MEASURED}: {record.result.get('failed', '')}"

    def baseline(self, workload: str) -> float | None:
        """Return the tokens a second of trl's own defaults: the mean of its runs, first and last."""
        runs = [self.result(f"speed/{workload}/{BASELINE}{again}") for again in ("", AGAIN)]
        rates = [float(run["tokens_per_second"]) for run in runs if run]
        return statistics.mean(rates) if rates else None

    def ceiling(self) -> float | None:
        """Return the tokens a second at the matrix product's rate, if a token cost no recomputation."""
        found = self.result("ceiling")
        scale = SCALES[self.scale]
        return found["matmul_flop_per_second"] / flop_per_token(scale.shape, scale.length) if found else None


def devices(records: Sequence[Record], scale: str = "7b") -> list[Device]:
    """Return what is known by device, in the order of their names."""
    names = sorted({record.place.device for record in records if record.place.scale == scale})
    return [
        Device(
            name,
            scale,
            newest([record for record in records if (record.place.device, record.place.scale) == (name, scale)]),
        )
        for name in names
    ]


def speed_table(device: Device, workload: str) -> list[str]:
    """Write one workload's speeds as a Markdown table."""
    lines = [
        "| variant | tokens/s | ms a step | times trl | of ceiling | allocated / reserved GB | J a token | attention |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name in _speed_names(device, workload):
        shown = name.split("/", maxsplit=2)[2]
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


def _speed_names(device: Device, workload: str) -> list[str]:
    """Return all there are, the unmeasured too; on this device those that were measured once and are gone as well."""
    wanted = [
        item.name for item in measurements(()) if item.name.startswith((f"speed/{workload}/", f"peer/{workload}/"))
    ]
    wanted += [name for name in device.records if name.startswith(f"speed/{workload}/") and name not in wanted]
    return wanted


def memory_table(device: Device) -> list[str]:
    """Write planned against measured, a line a configuration."""
    lines = [
        "| configuration | planned GB | allocated GB | off by | reserved GB | whole device GB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for case in case_names("current", on_gpu=True):
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


def goals(device: Device) -> list[tuple[str, bool | None]]:
    """Return each goal with what was reached, and whether it was; None where it was not measured."""
    return [
        *_speed_goal(device, "full", _FULL_GOAL),
        *_speed_goal(device, "ragged", _RAGGED_GOAL),
        _ceiling_goal(device),
        *_peer_goals(device),
        _memory_goal(device),
    ]


def _best(device: Device, workload: str, word: str = "") -> tuple[str, float] | None:
    rates = [
        (name.split("/", maxsplit=2)[2], float(found["tokens_per_second"]))
        for name in device.records
        if name.startswith(f"speed/{workload}/") and BASELINE not in name and word in name
        if (found := device.result(name))
    ]
    return max(rates, key=lambda item: item[1], default=None)


def _speed_goal(device: Device, workload: str, goal: float) -> Iterator[tuple[str, bool | None]]:
    best, plain = _best(device, workload), device.baseline(workload)
    words = f"{workload} rows, at least {goal:g} times trl's own defaults"
    if best is None or plain is None:
        yield f"{words}: {NOT_MEASURED}", None
        return
    yield f"{words}: {best[1] / plain:.2f} ({best[0]})", best[1] / plain >= goal


def _ceiling_goal(device: Device) -> tuple[str, bool | None]:
    best, ceiling = _best(device, "full", "no checkpointing"), device.ceiling()
    words = f"at least {_CEILING_GOAL:.0%} of the measured matrix product without checkpointing"
    if best is None or ceiling is None:
        return f"{words}: {NOT_MEASURED}", None
    reason = ""
    profile = device.result("profile/full")
    if best[1] / ceiling < _CEILING_GOAL and profile:
        parts = sorted(profile["groups"].items(), key=lambda item: -item[1])[:3]
        reason = "; a step consists of " + ", ".join(f"{name} {share:.0%}" for name, share in parts)
    return f"{words}: {best[1] / ceiling:.0%} ({best[0]}){reason}", best[1] / ceiling >= _CEILING_GOAL


def _peer_goals(device: Device) -> Iterator[tuple[str, bool | None]]:
    for workload in ("full", "ragged"):
        best = _best(device, workload)
        peers = [
            (name.split("/", maxsplit=2)[2], device.result(name))
            for name in _speed_names(device, workload)
            if name.startswith("peer/")
        ]
        rates = [(name, float(found["tokens_per_second"])) for name, found in peers if found]
        words = f"{workload} rows, ahead of each peer"
        if best is None or not rates:
            yield f"{words}: {NOT_MEASURED}", None
            continue
        name, rate = max(rates, key=lambda item: item[1])
        yield f"{words}: {best[1] / rate:.2f} times {name}", best[1] > rate


def _memory_goal(device: Device) -> tuple[str, bool | None]:
    offs = [
        abs(found["peak_bytes"]["predicted"] / found["peak_bytes"]["measured"] - 1)
        for name in device.records
        if name.startswith("memory/") and (found := device.result(name)) and "peak_bytes" in found
    ]
    words = f"peak memory within {WITHIN:.0%} of the plan"
    if not offs:
        return f"{words}: {NOT_MEASURED}", None
    return f"{words}: {len(offs)} configurations, {max(offs):.1%} at most", max(offs) <= WITHIN


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
    same = "equal bit for bit" if apart["equal"] else f"apart by {apart['largest_difference']:.1e} at most"
    took = ", ".join(f"{name} {spent:.0f} s" for name, spent in seconds.items())
    return f"adapters {same} (largest weight {apart['largest_weight']:.1e}); {took}"


def _generation(found: dict[str, Any]) -> str:
    one, eight = (found[f"at_once_{number}"]["tokens_per_second"] for number in (1, 8))
    return f"{one:,.0f} tokens/s one prompt at a time, {eight:,.0f} eight together"


_OTHERS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "ceiling": (
        "one large matrix product, and copying memory",
        lambda found: (
            f"{found['matmul_flop_per_second'] / 1e12:,.0f} TFLOP/s, {found['copy_bytes_per_second'] / 1e12:.2f} TB/s"
        ),
    ),
    "base": (
        "CUDA itself, outside torch's allocator",
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
    "evaluation": ("a loss over validation rows", lambda found: f"{found['tokens_per_second']:,.0f} tokens/s"),
    "generation": ("answers", _generation),
    "first run": ("a run stopped half-way and resumed, against one that was not", _first_run),
}


def goal_lines(device: Device) -> list[str]:
    """Write the goals as a list: reached, missed or not measured."""
    marks = {True: "reached", False: "missed", None: ""}
    return [f"- {words}{f': {marks[held]}' if marks[held] else ''}" for words, held in goals(device)]


def where_lines(device: Device) -> list[str]:
    """Say where, with what, when and from which code the newest measurements were taken."""
    said = []
    for record in device.records.values():
        place = record.place
        names = ("torch", "transformers", "trl", "peft", "bitsandbytes")
        versions = ", ".join(f"{name} {place.versions[name]}" for name in names if name in place.versions)
        driver = f", driver {place.driver}" if place.driver else ""
        revision = (record.commit.get("git_revision") or "unknown")[:7]
        changed = " with changes" if record.commit.get("git_dirty") else ""
        said.append(f"{place.device}{driver}; {versions}; {record.date[:10]}, commit {revision}{changed}")
    return [f"{line}." for line in dict.fromkeys(said)]


def waiting_table(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Write what a person waits for, by measurement, as a Markdown table, with the operators of a step below it."""
    lines = ["| what | the kit, s | the other, s | other / kit | goal |", "|---|---:|---:|---:|---:|"]
    for name, found in results.items():
        if "ours_seconds" not in found:
            continue
        unsure = found["uncertainty"]
        digits = 2 if unsure is None else 3  # a ratio with an uncertainty is measured to more than a hundredth
        other, ratio, goal = found["other_seconds"], found["ratio"], found["goal"]
        cells = [
            f"{found['ours_seconds']:.{digits}f}",
            "" if other is None else f"{other:.{digits}f}",
            ("" if ratio is None else f"{ratio:.{digits}f}") + ("" if unsure is None else f" ± {unsure:.{digits}f}"),
            "" if goal is None else f"{goal:g}",
        ]
        lines.append(f"| {name.removeprefix('cli/')} | {' | '.join(cells)} |")
    calls = results.get("cli/operators a step")
    if calls:
        told = f"the kit's {calls['kit']:,.0f}, trl's {calls['trl']:,.0f}"
        lines += ["", f"torch's operators that a step calls, adapter in bfloat16: {told}."]
    return lines


def data_lines(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Write how fast rows become training data, by measurement, as a Markdown table."""
    runs: dict[int, list[Run]] = {}
    versions: dict[str, str] = {}
    for name, found in sorted(results.items(), key=lambda item: int(item[0].split("/")[1])):
        told = dict(found)
        size, version = int(name.split("/")[1]), told.pop("version", "")
        runs.setdefault(size, []).append(Run(**told))
        versions[told["tool"]] = version
    return table(runs, versions)


def draw(device: Device, path: Path) -> None:
    """Draw tokens a second as bars, a panel for each workload."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(12, 5), squeeze=False)
    for panel, workload in zip(panels[0], ("full", "ragged"), strict=True):
        found = [
            (name.split("/", maxsplit=2)[2], result["tokens_per_second"])
            for name in _speed_names(device, workload)
            if (result := device.result(name))
        ][::-1]
        panel.barh(range(len(found)), [rate for _, rate in found])
        panel.set_yticks(range(len(found)), [name for name, _ in found])
        panel.set_xlabel("tokens a second")
        panel.set_title(f"{workload} rows")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
