"""The foot of a stem: what it costs and gives as a whole."""

from __future__ import annotations

from ..quantities import human
from ..spec.layers import Counts, Trace
from .canvas import Canvas
from .style import BAR, FAINT, SOFT
from .text import side, width

_NAME, _VALUE, _NARROWEST, _APART = 9.5, 13.0, 58.0, 14.0


class Totals:
    """The cells of the foot. With `most`, bars below flops and params compare a stem with its neighbours."""

    def __init__(self, trace: Trace, most: Counts | None) -> None:
        counts, end = trace.counts, trace.end
        self.cells = [
            ("flops", human(counts.flops), counts.flops, most.flops if most else 0),
            ("params", human(counts.params), counts.params, most.params if most else 0),
            ("stride", side(trace.stride), 0, 0),
            ("receptive field", f"{side(trace.receptive_field)} px", 0, 0),
            ("tokens × width", f"{trace.tokens} × {end.channels}", 0, 0),
        ]
        self.height = 44.0 if most else 34.0
        self.needs = [
            max(width(name, _NAME), width(value, _VALUE, bold=True), _NARROWEST if most else 0)
            for name, value, _, most in self.cells
        ]
        self.width = sum(self.needs) + _APART * (len(self.cells) - 1)

    def draw(self, canvas: Canvas, x: float, y: float, wide: float) -> None:
        """Draw the cells below y, spread over a width."""
        canvas.line(((x, y), (x + wide, y)), SOFT, 1)
        between = (wide - sum(self.needs)) / (len(self.cells) - 1)
        for (name, value, count, most), need in zip(self.cells, self.needs, strict=True):
            canvas.text(x, y + 14, name, _NAME, SOFT)
            canvas.text(x, y + 29, value, _VALUE, bold=True)
            if most:
                canvas.rect(x, y + 35, _NARROWEST, 6, FAINT)
                canvas.rect(x, y + 35, max(1.0, _NARROWEST * count / most), 6, BAR)
            x += need + between
