"""The report of an ablation."""

from __future__ import annotations

from pathlib import Path

from ...records import StudyFolder
from ...spec.files import Document, write_text
from .. import rendering


def write(folder: StudyFolder, document: Document) -> tuple[Path, Path]:
    """Write report.html, summary.md and the tables of an ablation, each whole or not at all; return the first two.

    `document` is the folder's study.yaml.
    """
    from .content import gather

    content = gather(folder, document)
    tables = folder.path / "tables"
    tables.mkdir(exist_ok=True)
    for table in content.tables:
        write_text(tables / f"{table.name}.csv", table.csv())
        write_text(tables / f"{table.name}.tex", table.latex())
    page, summary = folder.path / "report.html", folder.path / "summary.md"
    write_text(page, rendering.page("ablation.html.j2", content=content))
    write_text(summary, rendering.markdown("ablation.md.j2", content=content))
    return page, summary
