"""What each chart draws on its axes: a function for each, in the colours it is given.

matplotlib is imported only inside the functions, since whoever imports this module may not draw anything.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kit.files.numbers import finite, mapping

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kit.report.contents import Contents
    from kit.report.curves import Curve
    from kit.report.palette import Palette

_POINTS_WITH_MARKS = 60  # more validation points than this are a line
_DECADES = 30.0  # a loss that falls by more than this factor is drawn on a logarithmic axis
_FAINT = 0.4  # single steps, behind their average
_FAR = 2.5  # a limit that many times beyond the longest row would squeeze the rows into a corner
_MOST_EPOCHS = 12  # drawn as lines; more would be a curtain


def prepare(axes: Axes, palette: Palette) -> None:
    """Bring axes into the report's style: few lines, none of them louder than the data."""
    axes.set_facecolor("none")
    axes.grid(visible=True, axis="y", color=palette.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.muted, labelcolor=palette.muted, length=0, labelsize=11)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(palette.grid)


def _label(axes: Axes, palette: Palette, x: str, y: str) -> None:
    axes.set_xlabel(x, color=palette.muted, fontsize=11)
    axes.set_ylabel(y, color=palette.muted, fontsize=11)


def _legend(axes: Axes, palette: Palette, place: Any, **more: Any) -> None:
    axes.legend(loc=place, frameon=False, fontsize=11, labelcolor=palette.ink, **more)


def _mark(curve: Curve) -> str:
    """Return the mark without which a curve of one point could not be seen."""
    return "o" if len(curve.steps) == 1 else ""


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _over_steps(axes: Axes, palette: Palette, contents: Contents, unit: str) -> None:
    _label(axes, palette, "optimizer step", unit)
    _thousands(axes.xaxis)
    shown = [line["step"] for lines in (contents.run.steps, contents.run.evaluations) for line in lines]
    first, last = min(shown, default=1), max(shown, default=1)
    pad = max((last - first) * 0.015, 0.5)
    axes.set_xlim(first - pad, last + pad)


def loss(axes: Axes, contents: Contents, palette: Palette) -> None:
    """Draw training and validation loss, the former smoothed too; logarithmic where it fell far."""
    curves = contents.curves
    axes.plot(
        curves.loss.steps,
        curves.loss.values,
        color=palette.train,
        alpha=1.0 if _mark(curves.loss) else _FAINT,
        linewidth=1.0,
        marker=_mark(curves.loss),
        label="training, each step",
    )
    if not _mark(curves.loss) and curves.smooth_loss:
        axes.plot(
            curves.smooth_loss.steps,
            curves.smooth_loss.values,
            color=palette.train,
            linewidth=2.2,
            label="training, smoothed",
        )
    if curves.eval_loss:
        few = len(curves.eval_loss.steps) <= _POINTS_WITH_MARKS
        axes.plot(
            curves.eval_loss.steps,
            curves.eval_loss.values,
            color=palette.validation,
            linewidth=1.8,
            linestyle="--",
            marker="D" if few else "",
            markersize=5,
            label="validation",
        )
    values = [value for curve in (curves.smooth_loss, curves.eval_loss) for value in curve.values]
    logarithmic = bool(values) and min(values) > 0 and max(values) > _DECADES * min(values)
    logarithmic = logarithmic and min(curves.loss.values, default=1.0) > 0
    if logarithmic:
        _plain_decades(axes)
    elif values:
        axes.set_ylim(bottom=min(0.0, *values, *curves.loss.values))
    _over_steps(axes, palette, contents, "nats per token" + (", logarithmic" if logarithmic else ""))
    _mark_epochs(axes, contents, palette)
    if curves.broken_steps:
        axes.plot(
            curves.broken_steps[:200],
            [0.97] * len(curves.broken_steps[:200]),
            transform=axes.get_xaxis_transform(),
            color=palette.bad,
            linestyle="",
            marker="x",
            label="NaN or infinite",
        )
    _legend(axes, palette, "best")


def _plain_decades(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def _mark_epochs(axes: Axes, contents: Contents, palette: Palette) -> None:
    epochs = contents.curves.epochs
    if not 0 < len(epochs) <= _MOST_EPOCHS:
        return
    for step, epoch in epochs:
        axes.axvline(step, color=palette.muted, linewidth=0.8, linestyle=":", alpha=0.7)
        axes.annotate(
            f"epoch {epoch}",
            (step, 0.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-4, 5),
            textcoords="offset points",
            ha="right",
            color=palette.muted,
            fontsize=10,
        )


def learning_rate(axes: Axes, contents: Contents, palette: Palette) -> None:
    """Draw the learning rate."""
    from matplotlib.ticker import FuncFormatter

    curve = contents.curves.learning_rate
    axes.plot(curve.steps, curve.values, color=palette.train, linewidth=2, marker=_mark(curve))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    _over_steps(axes, palette, contents, "learning rate")


def _short(value: float) -> str:
    """Write a small number as it stands in configurations: ``2e-4``, ``1.5e-3``."""
    if not value:
        return "0"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def grad_norm(axes: Axes, contents: Contents, palette: Palette) -> None:
    """Draw the gradient's norm before clipping, smoothed too, and the length it is clipped to where that happened."""
    curve, smooth = contents.curves.grad_norm, contents.curves.smooth_grad_norm
    faint = 1.0 if _mark(curve) else _FAINT
    axes.plot(curve.steps, curve.values, color=palette.train, linewidth=1, alpha=faint, marker=_mark(curve))
    if not _mark(curve):
        axes.plot(smooth.steps, smooth.values, color=palette.train, linewidth=2)
    highest = max(curve.values)
    axes.set_ylim(0, highest * 1.08 or 1.0)
    limit = finite(mapping(mapping(contents.run.receipt.get("config")).get("training")).get("max_grad_norm"))
    if limit and limit < highest:
        axes.axhline(limit, color=palette.validation, linewidth=1.6, linestyle="--", label=f"clipped at {limit:g}")
        _legend(axes, palette, "lower right", bbox_to_anchor=(1, 1), borderpad=0)
    _over_steps(axes, palette, contents, "norm before clipping")


def throughput(axes: Axes, contents: Contents, palette: Palette) -> None:
    """Draw tokens per second."""
    curve = contents.curves.tokens_per_second
    axes.plot(curve.steps, curve.values, color=palette.train, linewidth=1.6, marker=_mark(curve))
    axes.set_ylim(0, max(curve.values) * 1.08 or 1.0)
    _over_steps(axes, palette, contents, "tokens/s")
    _thousands(axes.yaxis)


def memory(axes: Axes, contents: Contents, palette: Palette) -> None:
    """Draw memory in use, and the predicted peak where there is one."""
    curve, predicted = contents.curves.memory_bytes, contents.prediction.peak_memory_bytes
    values = [value / 1e9 for value in curve.values]
    axes.plot(curve.steps, values, color=palette.train, linewidth=1.8, marker=_mark(curve))
    top = max(values)
    if predicted is not None:
        axes.axhline(predicted / 1e9, color=palette.validation, linewidth=1.4, linestyle="--", label="predicted peak")
        _legend(axes, palette, "lower right")
        top = max(top, predicted / 1e9)
    axes.set_ylim(0, top * 1.1 or 1.0)
    _over_steps(axes, palette, contents, "GB")


def lengths(axes: Axes, contents: Contents, palette: Palette) -> None:
    """Draw the histogram of row lengths, and the length rows are cut at unless it is far away."""
    rows = contents.lengths
    widths = [after - before for before, after in pairwise(rows.edges)]
    axes.bar(rows.edges[:-1], rows.counts, widths, align="edge", color=palette.train, alpha=0.85, edgecolor="none")
    limit = finite(mapping(mapping(contents.run.receipt.get("config")).get("training")).get("max_seq_length"))
    if limit and limit <= _FAR * rows.edges[-1]:
        axes.axvline(limit, color=palette.validation, linewidth=1.4, linestyle="--", label=f"truncated at {limit:,.0f}")
        axes.margins(x=0.05)
        axes.set_ylim(0, max(rows.counts) * 1.05 or 1.0)
        _legend(axes, palette, "lower right", bbox_to_anchor=(1, 1), borderpad=0)
    _label(axes, palette, "tokens per row", "rows")
    _thousands(axes.xaxis)
    _thousands(axes.yaxis)


def predicted_memory(axes: Axes, contents: Contents, palette: Palette) -> None:
    """Draw the predicted memory, in its terms, above the measured peak."""
    prediction = contents.prediction
    left = 0.0
    for index, part in enumerate(prediction.parts):
        size = part.size_bytes / 1e9
        axes.barh(0, size, left=left, height=0.62, color=palette.train, alpha=0.9 if index % 2 == 0 else 0.55)
        left += size
    if not prediction.parts:
        axes.barh(0, (prediction.peak_memory_bytes or 0) / 1e9, height=0.62, color=palette.train, alpha=0.9)
    _pair(axes, palette, (prediction.peak_memory_bytes or 0) / 1e9, (prediction.measured_memory_bytes or 0) / 1e9, "GB")


def predicted_time(axes: Axes, contents: Contents, palette: Palette) -> None:
    """Draw the predicted time of training above the measured one."""
    prediction = contents.prediction
    predicted, measured = prediction.seconds or 0.0, prediction.measured_seconds or 0.0
    size, unit = next(
        (size, unit)
        for size, unit in ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
        if max(predicted, measured) > 2 * size or size == 1.0
    )
    axes.barh(0, predicted / size, height=0.62, color=palette.train, alpha=0.9)
    _pair(axes, palette, predicted / size, measured / size, unit)


def _pair(axes: Axes, palette: Palette, predicted: float, measured: float, unit: str) -> None:
    axes.barh(1, measured, height=0.62, color=palette.validation)
    axes.set_yticks([0, 1], ["predicted", "measured"])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=palette.grid, linewidth=0.8)
    for row, value in enumerate((predicted, measured)):
        axes.annotate(
            f"{value:,.2f}",
            (value, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=palette.ink,
            fontsize=11,
        )
    axes.set_xlim(0, max(predicted, measured) * 1.18 or 1.0)
    _label(axes, palette, unit, "")
