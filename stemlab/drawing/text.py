"""Text in a picture: how wide it is at most, how it is made to fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .. import quantities

FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
"""System fonts alone, so that a picture needs nothing from elsewhere."""

# Widths in parts of the font's size, those of DejaVu Sans, the widest of the fonts above.
_WIDTHS = {
    **dict.fromkeys("ijlI'", 0.33),
    **dict.fromkeys("ft!(),-./:;[\\]| ·’", 0.42),
    **dict.fromkeys('r"*_`cksvxyzFLJ?', 0.62),
    **dict.fromkeys("DGHNOQU&", 0.8),
    **dict.fromkeys("wM#+<=>^~×↓", 0.88),
    **dict.fromkeys("mWw%@…", 1.0),
}
_OTHER_ASCII, _OTHER, _BOLD = 0.7, 1.3, 1.14

# What XML 1.0 cannot hold, and what would turn the direction of the text around it.
_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u200d\u2010-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)


def clean(text: str) -> str:
    """Return text as one line that an XML document can hold."""
    return " ".join(_FORBIDDEN.sub(" ", text).split())


def width(text: str, size: float, bold: bool = False) -> float:
    """Return how wide a line is at most, in the units of `size`."""
    units = sum(_WIDTHS.get(c, _OTHER_ASCII if c.isascii() else _OTHER) for c in text)
    return units * size * (_BOLD if bold else 1)


def fit(text: str, room: float, size: float, bold: bool = False) -> str:
    """Return as much of a line as there is room for, with an ellipsis where it is cut."""
    if width(text, size, bold) <= room:
        return text
    while text and width(f"{text}…", size, bold) > room:
        text = text[:-1]
    return f"{text.rstrip(' ,·')}…"


def wrap(pieces: Iterable[str], between: str, room: float, size: float, most: int = 3) -> list[str]:
    """Return pieces joined on lines of at most that width; what is beyond `most` lines ends in an ellipsis."""
    lines: list[str] = []
    for piece in pieces:
        joined = f"{lines[-1]}{between}{piece}" if lines else piece
        if lines and (width(joined, size) <= room or len(lines) == most):
            lines[-1] = joined
        else:
            lines.append(piece)
    return [fit(line, room, size) for line in lines]


def size(pair: Sequence[int]) -> str:
    """Return a height and width as people write them: 3×3."""
    return "×".join(map(str, pair))


def side(pair: Sequence[int]) -> str:
    """Return one number for a square, both for a rectangle."""
    return quantities.side(pair, by="×")


def shares(values: Sequence[float]) -> list[str]:
    """Return each value's share of their sum in percent; rounded to tenths so that what is shown adds up to 100.

    What rounds to nothing is shown as <0.1%.
    """
    total = sum(values)
    if not total:
        return ["" for _ in values]
    exact = [1000 * value / total for value in values]
    tenths = [int(part) for part in exact]
    by_rest = sorted(range(len(values)), key=lambda i: tenths[i] - exact[i])
    for index in by_rest[: 1000 - sum(tenths)]:
        tenths[index] += 1
    return [
        f"{part / 10:.1f}%" if part else "<0.1%" if value else "" for part, value in zip(tenths, values, strict=True)
    ]
