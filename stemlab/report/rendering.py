"""From templates to text: HTML, in which everything is escaped, and Markdown, which has escapes of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def page(template: str, **values: Any) -> str:
    """Return a page. The same values give the same text, byte for byte."""
    environment = _environment(autoescape=True)
    environment.filters["tied"] = _tied
    return environment.get_template(template).render(**values)


def markdown(template: str, **values: Any) -> str:
    """Return text in GitHub's Markdown; the filter `text` escapes."""
    environment = _environment(autoescape=False, keep_trailing_newline=True)
    environment.filters["text"] = escape
    return environment.get_template(template).render(**values)


def _environment(**options: Any) -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def escape(text: str) -> str:
    """Return text as one line that Markdown shows as it is, in a table cell or out of one."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", line)


def _tied(text: str) -> str:
    """Keep together what a line's end should not part: a number and its unit, and top-1."""
    return re.sub(r"(?<=\d) (?=[%±kMGT])", "\N{NO-BREAK SPACE}", text).replace("-", "\N{NON-BREAKING HYPHEN}")
