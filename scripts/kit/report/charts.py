"""The report's charts, drawn by matplotlib: once as SVG for the page, once as one PNG for a chat message.

matplotlib is imported only inside the functions, since whoever imports this module may not draw anything.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import textwrap
import warnings
from html import escape
from typing import TYPE_CHECKING, Any

from kit.cli.screen import visible
from kit.report import plots
from kit.report.palette import PICTURE, STAND_INS, VARIABLES, Palette
from kit.report.verdict import loss_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kit.report.contents import Contents
    from kit.report.curves import Curve

    Draw = Callable[[Axes, Contents, Palette], None]

_FONT = re.compile(r"font-family: [^;\"]+")
_DPI = 72  # matplotlib's SVG counts in points: at 72 a pixel is a point
_WIDE, _NARROW, _SMALL, _FLAT = (900, 310), (390, 300), (420, 230), (420, 140)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "path.simplify": True,
}


def page_charts(contents: Contents) -> dict[str, str]:
    """Draw every chart there is something to show in, as inline SVG by name."""
    with _drawing():
        charts = {}
        for name, size, title, draw, is_there in _page(contents):
            if is_there:
                charts[name] = _svg(name, size, title, draw, contents)
        return charts


def _page(contents: Contents) -> list[tuple[str, tuple[int, int], str, Draw, bool]]:
    curves, prediction = contents.curves, contents.prediction
    has_memory = None not in {prediction.peak_memory_bytes, prediction.measured_memory_bytes}
    has_time = None not in {prediction.seconds, prediction.measured_seconds}
    has_loss = bool(curves.loss or curves.eval_loss)
    return [
        ("loss-wide", _WIDE, "Loss", plots.loss, has_loss),
        ("loss-narrow", _NARROW, "Loss", plots.loss, has_loss),
        ("learning-rate", _SMALL, "Learning rate", plots.learning_rate, bool(curves.learning_rate)),
        ("grad-norm", _SMALL, "Gradient norm", plots.grad_norm, bool(curves.grad_norm)),
        ("throughput", _SMALL, "Throughput", plots.throughput, bool(curves.tokens_per_second)),
        ("memory", _SMALL, "Memory", plots.memory, bool(curves.memory_bytes)),
        ("lengths", _SMALL, "Row lengths", plots.lengths, bool(contents.lengths)),
        ("predicted-memory", _FLAT, "Predicted and measured memory", plots.predicted_memory, has_memory),
        ("predicted-time", _FLAT, "Predicted and measured time", plots.predicted_time, has_time),
    ]


def curves_png(contents: Contents) -> bytes:
    """Draw the curves as one picture, 1200 by 760 pixels, light."""
    with _drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 7.6), dpi=100, layout="constrained", facecolor="white")
        grid = figure.add_gridspec(2, 3, height_ratios=(1.7, 1))
        panels: list[tuple[Any, str, Draw, Curve]] = [
            (grid[0, :], "Loss", plots.loss, contents.curves.loss),
            (grid[1, 0], "Learning rate", plots.learning_rate, contents.curves.learning_rate),
            (grid[1, 1], "Gradient norm", plots.grad_norm, contents.curves.grad_norm),
            (grid[1, 2], "Throughput", plots.throughput, contents.curves.tokens_per_second),
        ]
        for place, title, draw, curve in panels:
            axes = figure.add_subplot(place)
            plots.prepare(axes, PICTURE)
            axes.set_title(title, loc="left", color=PICTURE.ink, fontsize=12, fontweight="bold")
            if curve:
                draw(axes, contents, PICTURE)
            else:
                axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center", color=PICTURE.muted)
        head = textwrap.shorten(contents.summary.name, 60) + "\n" + textwrap.fill(contents.verdict.sentence, 120)
        figure.suptitle(_plain(head), x=0.01, ha="left", fontsize=13, color=PICTURE.ink)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
        return stream.getvalue()


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """Draw in our own style, whatever a person's matplotlibrc says, and without matplotlib's remarks on its caches."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        import matplotlib as mpl

        with warnings.catch_warnings(), mpl.rc_context({**mpl.rcParamsDefault, **_STYLE}):
            # The page's own font draws what matplotlib's lacks; the picture shows a box there.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            yield
    finally:
        log.setLevel(level)


def _svg(name: str, size: tuple[int, int], title: str, draw: Draw, contents: Contents) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    plots.prepare(axes, STAND_INS)
    draw(axes, contents, STAND_INS)
    return _inline(figure, name, title, _described(name, contents))


def _inline(figure: Figure, name: str, title: str, description: str) -> str:
    """Draw a figure as an accessible ``<svg>`` element; ``name`` prefixes its ids."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    text = _FONT.sub("font-family: var(--font)", text)
    box = re.search(r'viewBox="([^"]+)"', text)
    head = (
        f'<svg viewBox="{box.group(1) if box else ""}" role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-description">{escape(description)}</desc>'
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)


def _plain(text: str) -> str:
    """Keep matplotlib from reading dollars as formulas, and from what it cannot draw."""
    return visible(text).replace("$", r"\$")


def _described(name: str, contents: Contents) -> str:
    curves = contents.curves
    if name.startswith("loss"):
        words = (
            [f"Training loss from {loss_text(curves.loss.values[0])} to {loss_text(curves.loss.values[-1])}"]
            if curves.loss
            else []
        )
        if curves.eval_loss:
            first, last = (loss_text(curves.eval_loss.values[index]) for index in (0, -1))
            words.append(f"validation loss from {first} to {last}")
        return ", ".join(words) + ", over optimizer steps."
    curve = {
        "learning-rate": curves.learning_rate,
        "grad-norm": curves.grad_norm,
        "throughput": curves.tokens_per_second,
        "memory": curves.memory_bytes,
    }.get(name)
    if curve:
        low, high = min(curve.values), max(curve.values)
        return f"Between {low:.4g} and {high:.4g} over {len(contents.run.steps):,} optimizer steps."
    if name == "lengths":
        edges = contents.lengths.edges
        return f"{sum(contents.lengths.counts):,.0f} rows of {edges[0]:,.0f} to {edges[-1]:,.0f} tokens."
    return "Predicted value above, measured value below."
