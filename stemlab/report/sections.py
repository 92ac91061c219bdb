"""The parts of a report: what a page and a summary both go through, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from .tables import Table


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, and what stands below it.

    `size` is `plain` (as broad as text), `wide` (as broad as the page), or `own`: its own size, scrolled if need be.
    """

    svg: Markup
    caption: str
    size: Literal["plain", "wide", "own"] = "plain"


@dataclass(frozen=True)
class Section:
    """A heading, sentences, figures and tables; `name` is its id on the page. All text is plain."""

    name: str
    heading: str
    words: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it has nothing to show."""
        return not (self.words or self.pictures or self.tables)
