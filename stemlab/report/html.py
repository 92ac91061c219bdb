"""report.html: one page that stands alone. It loads nothing, runs nothing, and prints."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..analysis import ranking
from ..records import StudyFolder
from ..spec.files import write_text
from . import figures
from .content import Content, gather

_HIGHLIGHTED = 3


def write(folder: StudyFolder) -> Path:
    """Write report.html of a study folder, whole or not at all; return its path."""
    path = folder.path / "report.html"
    write_text(path, render(gather(folder)))
    return path


def render(content: Content) -> str:
    """Return the page. The same content gives the same text, byte for byte."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tied"] = _tied
    return environment.get_template("report.html.j2").render(
        content=content, cost_figure=_cost_figure(content), curve_figure=_curve_figure(content)
    )


def _cost_figure(content: Content) -> Markup | None:
    """Draw the ok proposals only: a mean over the seeds that survived is no accuracy to compare."""
    ranked = content.ranked[content.ranked["status"] == "ok"]
    if not (ranked["top1"].notna() & ranked["stem_flops_share"].notna()).any():
        return None
    front = ranking.pareto(ranked, "stem_flops_share", "top1", 1)
    figure = figures.accuracy_against_cost(ranked, front)
    description = f"Scatter plot of validation top-1 against the stem's share of the multiply-adds. {content.headline}"
    return Markup(figures.to_svg(figure, "cost", description))


def _curve_figure(content: Content) -> Markup | None:
    if not any("top1" in row for record in content.records for row in record.curve):
        return None
    ok = content.ranked[(content.ranked["status"] == "ok") & content.ranked["proposal"].notna()]
    highlights: dict[int | None, str] = {
        int(row.proposal): f"{place + 1}: {_shortened(row.label)}"
        for place, row in zip(ok.index[:_HIGHLIGHTED], ok.itertuples(), strict=False)
    }
    figure = figures.learning_curves(content.records, highlights)
    description = f"Line plot of validation top-1 by epoch, one line for each of {len(content.records)} trials."
    return Markup(figures.to_svg(figure, "curves", description))


def _tied(text: str) -> str:
    """Keep together what a line's end should not part: a number and its unit, and top-1."""
    return re.sub(r"(?<=\d) (?=[%±kMGT])", "\N{NO-BREAK SPACE}", text).replace("-", "\N{NON-BREAKING HYPHEN}")


def _shortened(label: str, most: int = 64) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"
