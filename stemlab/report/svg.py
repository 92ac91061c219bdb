"""What all figures of reports share: the look, and how they become SVG.

Every mark differs by shape or dashes as well as by colour, so that a figure reads in grey and by every eye.
The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"
INK, GREY, PALE = "#222222", "#767676", "#bdbdbd"

LEGEND: Any = {"frameon": False, "fontsize": 8.5, "borderpad": 0.2}
STYLE: Any = {
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9.5,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
}


def sheet(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return an empty figure, in inches, and its axes: an array of (rows, columns). `options` go to subplots."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    for each in axes.flat:
        each.set_axisbelow(True)
    return figure, axes


def blank(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Return an empty figure of the usual size, and its axes."""
    figure, axes = sheet(5.7, 4.4, subplot_kw={"xlabel": x_label, "ylabel": y_label})
    return figure, axes[0, 0]


def shortened(label: str, most: int = 56) -> str:
    """Return a label that fits into a legend."""
    return label if len(label) <= most else f"{label[: most - 1]}…"


def plain(texts: Iterable[Text]) -> None:
    """Show texts as they are: a label is no formula, whatever dollar signs it has."""
    for text in texts:
        text.set_parse_math(False)


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Return a figure as an <svg> element for a page; `name` keeps its ids apart from those of other figures.

    The same figure gives the same text: no date, no random ids. Text stays text.
    """
    import matplotlib
    from markupsafe import escape

    file = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "stemlab"}):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
