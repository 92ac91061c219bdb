"""The report of a search."""

from __future__ import annotations

from pathlib import Path

from ...records import StudyFolder
from ...spec.files import write_text
from .. import rendering
from .content import gather
from .page import render


def write(folder: StudyFolder) -> tuple[Path, Path]:
    """Write report.html and summary.md of a search, each whole or not at all; return their paths.

    ranking.csv has the ranking in full precision.
    """
    content = gather(folder)
    page, summary = folder.path / "report.html", folder.path / "summary.md"
    write_text(page, render(content))
    write_text(summary, rendering.markdown("search.md.j2", content=content))
    write_text(folder.path / "ranking.csv", content.ranked.to_csv(index=False, lineterminator="\n"))
    return page, summary
