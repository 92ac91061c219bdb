"""summary.md: the headline and the ranking, for a pull request, a notebook or a mail."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..records import StudyFolder
from ..spec.files import write_text
from .content import Content, gather


def write(folder: StudyFolder) -> Path:
    """Write summary.md of a study folder, whole or not at all; return its path."""
    path = folder.path / "summary.md"
    write_text(path, render(gather(folder)))
    return path


def render(content: Content) -> str:
    """Return the summary in GitHub's Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown has its own escapes, below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["text"] = escape
    return environment.get_template("summary.md.j2").render(content=content)


def escape(text: str) -> str:
    """Return text as one line that Markdown shows as it is, in a table cell or out of one."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", line)
