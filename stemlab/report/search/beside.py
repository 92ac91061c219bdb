"""A random search of the same space, to measure a search by."""

from __future__ import annotations

from typing import Any

from ...errors import StemlabError
from ...records import StudyFolder, TrialRecord
from ...spec import SearchSpec
from ...spec.files import read, validate

_SPACE = ("model", "data", "train", "constraints", "latency")
_JUDGED = ("objective", "seeds", "draws", "judge")


def random_search(folder: StudyFolder, study: SearchSpec) -> tuple[str, list[TrialRecord]] | None:
    """Return name and records of a random search of the same space, judged in the same way, in or beside a folder.

    Of several it is the one with most records, of equals the first by name; None where there is none, or where the
    study is a random search itself. A study that cannot be read is none.
    """
    if study.search.tuner == "random":
        return None
    found: tuple[str, list[TrialRecord]] | None = None
    try:
        places = [*sorted(folder.path.parent.iterdir()), *sorted(folder.path.iterdir())]
    except OSError:
        return None
    for path in places:
        written = path / "study.yaml"
        try:
            if path == folder.path or "tuner: random" not in written.read_text(encoding="utf-8"):
                continue
            other = validate(SearchSpec, read(written))
            records = StudyFolder(path).records() if _comparable(study, other) else []
        except (OSError, ValueError, StemlabError):
            continue
        if records and (found is None or len(records) > len(found[1])):
            found = path.name, records
    return found


def _comparable(study: SearchSpec, other: SearchSpec) -> bool:
    settings = other.search
    is_plain = settings.tuner == "random" and settings.fidelity is None and settings.screen is None
    return is_plain and _what(study) == _what(other)


def _what(study: SearchSpec) -> list[Any]:
    document = study.canonical()
    return [
        *(document.get(name) for name in _SPACE),
        *(document["search"].get(name) for name in _JUDGED),
        document.get("relations"),
    ]
