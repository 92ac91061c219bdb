"""The report of an ablation."""

from __future__ import annotations

from pathlib import Path

from ...records import StudyFolder
from ...spec.files import Document, write_text
from .. import rendering


def write(folder: StudyFolder, document: Document) -> tuple[Path, Path]:
    """Write report.html and summary.md of an ablation, its tables and its figures; return the first two.

    Each file is whole or not at all. `tables/` has what stands in tables, rounded as LaTeX, in full precision as CSV.

    `document` is the folder's study.yaml.
    """
    from .content import gather

    content = gather(folder, document)
    tables = folder.path / "tables"
    tables.mkdir(exist_ok=True)
    for table in content.tables:
        write_text(tables / f"{table.name}.csv", table.csv())
        write_text(tables / f"{table.name}.tex", table.latex())
    figures = folder.path / "figures"
    figures.mkdir(exist_ok=True)
    for section in content.sections:
        for number, picture in enumerate(section.pictures, start=1):
            more = f"_{number}" if number > 1 else ""
            write_text(figures / f"{section.name}{more}.svg", f"{picture.svg}\n")
    page, summary = folder.path / "report.html", folder.path / "summary.md"
    write_text(page, rendering.page("ablation.html.j2", content=content))
    write_text(summary, rendering.markdown("ablation.md.j2", content=content))
    return page, summary
