"""What an analysis returns: its numbers in full precision, and in words what was done to get them."""

from __future__ import annotations

import html
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from . import latex

_MOST_ROWS = 60
"""How many rows are shown; an error distribution can have thousands."""


@dataclass(frozen=True)
class Result:
    """Numbers of one analysis: a tidy frame, and in words what was done.

    `frame` has plain column names, one row a finding, and is never rounded; what is shown of it (as text, HTML or
    LaTeX) is: four digits, `–` for what there is no number for.
    """

    title: str
    frame: pd.DataFrame
    method: str

    def __repr__(self) -> str:
        header, rows, more = self._cells(_MOST_ROWS)
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        right = _is_numeric(self.frame)
        lines = [
            "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True))
            for line in (header, *rows)
        ]
        return "\n".join([self.title, "", *(line.rstrip() for line in lines), *more, "", self.method])

    def _repr_html_(self) -> str:
        header, rows, more = self._cells(_MOST_ROWS, html.escape)
        aligned = [' style="text-align: right"' if right else "" for right in _is_numeric(self.frame)]
        head = "".join(f"<th{style}>{cell}</th>" for cell, style in zip(header, aligned, strict=True))
        body = "".join(
            f"<tr>{''.join(f'<td{style}>{cell}</td>' for cell, style in zip(row, aligned, strict=True))}</tr>"
            for row in rows
        )
        return (
            f"<div><p><strong>{html.escape(self.title)}</strong></p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"{''.join(f'<p>{line}</p>' for line in more)}<p>{html.escape(self.method)}</p></div>"
        )

    def to_latex(self) -> str:
        """Return a LaTeX table (it needs the package booktabs): all rows, title and method as its caption."""
        header, rows, _ = self._cells(len(self.frame))
        return latex.table(header, rows, _is_numeric(self.frame), f"{self.title}. {self.method}")

    def to_csv(self) -> str:
        """Return the frame as CSV in full precision; what is missing is an empty cell."""
        return str(self.frame.to_csv(index=False, lineterminator="\n"))

    def _cells(self, most: int, escape: Callable[[str], str] = str) -> tuple[list[str], list[list[str]], list[str]]:
        """Return header, rows as shown, and a line that says how many rows are left out."""
        shown = self.frame.head(most)
        columns = [[escape(show(value)) for value in shown[name]] for name in shown.columns]
        left_out = len(self.frame) - len(shown)
        more = [f"… {left_out} more rows"] if left_out else []
        return [escape(str(name)) for name in shown.columns], [list(row) for row in zip(*columns, strict=True)], more


def show(value: Any) -> str:
    """Return a value as a table shows it: numbers with four digits, `–` where there is none."""
    if pd.isna(value):
        return "–"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return str(value)
    number = float(value)
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    is_count = number.is_integer() and abs(number) < 1e15
    digits = str(abs(int(number))) if is_count else f"{abs(number):.4g}"
    return f"−{digits}" if number < 0 else digits


def _is_numeric(frame: pd.DataFrame) -> list[bool]:
    return [pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) for kind in frame.dtypes]
