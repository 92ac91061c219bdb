"""SVG, one element at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from xml.sax.saxutils import escape, quoteattr

from .style import INK, PAPER
from .text import FONT, clean

Point = tuple[float, float]


class Canvas:
    """Collects the elements of a picture; coordinates grow to the right and down."""

    def __init__(self) -> None:
        self._elements: list[str] = []

    def svg(self, width: float, height: float, title: str, description: str) -> str:
        """Return the document: self-contained, on a ground of its own, scaled to its place but not beyond its size."""
        w, h = _number(width), _number(height)
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
                f'style="max-width:100%;height:auto" role="img" aria-label={quoteattr(clean(title))} '
                f'font-family="{FONT}">',
                f"<title>{escape(clean(title))}</title>",
                f"<desc>{escape(clean(description))}</desc>",
                f'<rect width="{w}" height="{h}" fill="{PAPER}"/>',
                *self._elements,
                "</svg>\n",
            )
        )

    @contextmanager
    def group(self, kind: str, tip: str) -> Iterator[None]:
        """Put what is drawn meanwhile into one group, with words for those who point at it or hear it read."""
        self._elements.append(f'<g class="{kind}"><title>{escape(clean(tip))}</title>')
        yield
        self._elements.append("</g>")

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str, edge: str | None = None, round: float = 0
    ) -> None:
        """Draw a rectangle."""
        self._add("rect", x=x, y=y, width=width, height=height, rx=round or None, fill=fill, stroke=edge)

    def polygon(self, points: Sequence[Point], fill: str, edge: str) -> None:
        """Draw a filled polygon."""
        corners = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self._add("polygon", points=corners, fill=fill, stroke=edge, stroke_width=0.8, stroke_linejoin="round")

    def line(self, points: Sequence[Point], colour: str = INK, thick: float = 1.2) -> None:
        """Draw a line through points."""
        path = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        self._add("path", d=path, fill="none", stroke=colour, stroke_width=thick, stroke_linejoin="round")

    def arrow(self, x: float, top: float, bottom: float) -> None:
        """Draw a line down into what begins at `bottom`."""
        self.line(((x, top), (x, bottom - 3)))
        self._add(
            "path", d=f"M{_number(x - 3.2)} {_number(bottom - 5.5)}h6.4L{_number(x)} {_number(bottom)}z", fill=INK
        )

    def dot(self, x: float, y: float, radius: float, fill: str = INK) -> None:
        """Draw a disc with an edge of ink."""
        self._add("circle", cx=x, cy=y, r=radius, fill=fill, stroke=INK, stroke_width=1.2)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float,
        colour: str = INK,
        bold: bool = False,
        anchor: str | None = None,
        behind: str = "",
    ) -> None:
        """Write a line whose baseline is at y; `behind` goes on in plain type where the words are bold."""
        inner = escape(clean(words))
        if behind:
            inner = f'<tspan font-weight="700">{inner}</tspan>{escape(behind)}'
        weight = 700 if bold and not behind else None
        self._add("text", inner, x=x, y=y, font_size=size, font_weight=weight, text_anchor=anchor, fill=colour)

    def _add(self, element: str, inner: str = "", /, **attributes: float | str | None) -> None:
        written = " ".join(
            f'{name.replace("_", "-")}="{value if isinstance(value, str) else _number(value)}"'
            for name, value in attributes.items()
            if value is not None
        )
        self._elements.append(f"<{element} {written}" + (f">{inner}</{element}>" if inner else "/>"))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
