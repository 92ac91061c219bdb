"""`stemlab report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "report"


def run(folder: Annotated[Path, typer.Argument(help="The folder of a study, such as runs/conv3x3.")]) -> None:
    """Write report.html and summary.md of a study anew, finished or not."""
    from stemlab import Study

    print(Study(folder).report())
