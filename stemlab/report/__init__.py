"""What a study found, for people: figures, a page and a summary made from its records.

Importing this is cheap: pandas, matplotlib and jinja2 are imported where they are used.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import StudyError
from ..records import StudyFolder


def prepare() -> None:
    """Import what reports need, which takes a second or two."""
    # These are imported where they are used.
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401
    import sklearn.ensemble  # noqa: F401

    from . import ablation, search  # noqa: F401 (pandas, jinja2, scipy's statistics)


def write(folder: StudyFolder) -> tuple[Path, Path]:
    """Write report.html and summary.md of a study, finished or interrupted; return their paths.

    An ablation's tables and figures are written too: tables/*.csv in full precision, tables/*.tex and figures/*.svg for
    a paper. StudyError where the folder holds no study.
    """
    from ..spec.files import read

    written = folder.path / "study.yaml"
    if not written.exists():
        raise StudyError(f"{folder.path}: there is no study.yaml; expected the folder of a study (its --out)")
    document = read(written)
    if isinstance(document.data, dict) and "ablate" in document.data:
        from . import ablation

        return ablation.write(folder, document)
    from . import search

    return search.write(folder)
