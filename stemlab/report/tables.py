"""Tables: numbers as cells for a page and a summary, as CSV in full precision, and as LaTeX for a paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..analysis import latex
from ..analysis.result import Result

Show = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Column:
    """A column: its heading, and how a row's cell is written. Numbers stand to the right, `text` to the left."""

    heading: str
    show: Show
    text: bool = False


@dataclass(frozen=True)
class Table:
    """A table as it is shown. `name` is that of its files; `rows` are its cells under `columns`, plain text.

    `marks` has a word of style for each row, or an empty one; `method` says how the numbers came about.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[str, ...]
    method: str
    frame: Any = field(repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        result: Result,
        columns: Sequence[Column],
        mark: Show = lambda row: "",
        title: str | None = None,
    ) -> Table:
        """Return the table of a result."""
        rows = result.frame.to_dict("records")
        return cls(
            name=name,
            title=title or result.title,
            columns=tuple(columns),
            rows=tuple(tuple(column.show(row) for column in columns) for row in rows),
            marks=tuple(mark(row) for row in rows),
            method=result.method,
            frame=result.frame,
        )

    def csv(self) -> str:
        """Return the numbers behind the table, in full precision."""
        return str(self.frame.to_csv(index=False, lineterminator="\n"))

    def latex(self) -> str:
        """Return the table as shown, for a paper: it needs \\usepackage{booktabs}."""
        headings, numeric = [column.heading for column in self.columns], [not column.text for column in self.columns]
        return latex.table(headings, self.rows, numeric, f"{self.title}. {self.method}", self.name)
