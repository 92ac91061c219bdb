"""What a study found, for people: figures, a page and a summary made from its records.

Importing this is cheap: pandas, matplotlib and jinja2 are imported where they are used.
"""

from __future__ import annotations

from pathlib import Path

from ..records import StudyFolder


def write(folder: StudyFolder) -> tuple[Path, Path]:
    """Write report.html and summary.md of a finished or interrupted study; return their paths."""
    from .html import write as write_page
    from .markdown import write as write_summary

    return write_page(folder), write_summary(folder)
