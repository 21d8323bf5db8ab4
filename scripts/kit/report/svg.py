"""matplotlib's SVG made fit for a page: coloured by its variables, in its font, named for a screen reader."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

from kit.report.palette import VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FONT = re.compile(r"font-family: [^;\"]+")


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
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
