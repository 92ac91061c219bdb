"""report.html: one page that stands alone. It loads nothing, runs nothing, and prints."""

from __future__ import annotations

from markupsafe import Markup

from ...analysis import ranking
from .. import rendering, svg
from . import figures
from .content import Content

_HIGHLIGHTED = 3


def render(content: Content) -> str:
    """Return the page. The same content gives the same text, byte for byte."""
    return rendering.page(
        "search.html.j2", content=content, cost_figure=_cost_figure(content), curve_figure=_curve_figure(content)
    )


def _cost_figure(content: Content) -> Markup | None:
    """Draw the ok proposals only: a mean over the seeds that survived is no accuracy to compare."""
    ranked = content.ranked[content.ranked["judged"].notna()]
    if not (ranked["top1"].notna() & ranked["stem_flops_share"].notna()).any():
        return None
    front = ranking.pareto(ranked, "stem_flops_share", "top1", 1)
    figure = figures.accuracy_against_cost(ranked, front)
    description = f"Scatter plot of validation top-1 against the stem's share of the multiply-adds. {content.headline}"
    return Markup(svg.to_svg(figure, "cost", description))


def _curve_figure(content: Content) -> Markup | None:
    if not any("top1" in row for record in content.records for row in record.curve):
        return None
    ok = content.ranked[content.ranked["judged"].notna() & content.ranked["proposal"].notna()]
    highlights: dict[int | None, str] = {
        int(row.proposal): f"{place + 1}: {svg.shortened(row.label, 64)}"
        for place, row in zip(ok.index[:_HIGHLIGHTED], ok.itertuples(), strict=False)
    }
    figure = figures.learning_curves(content.records, highlights)
    description = f"Line plot of validation top-1 by epoch, one line for each of {len(content.records)} trials."
    return Markup(svg.to_svg(figure, "curves", description))
