"""What a study ran on, line by line, as every report says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import StudyError
from ..records import StudyFolder
from .numbers import GAP


def read(folder: StudyFolder) -> dict[str, Any]:
    """Return the manifest of a study folder; nothing where there is none, or none that can be read."""
    try:
        manifest = folder.read_json("manifest.json")
    except StudyError:  # a report without it is better than none
        return {}
    return manifest if isinstance(manifest, dict) else {}


def lines(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Return dotted name and value of each thing that a manifest says."""
    return list(_flat("", manifest))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}".lstrip("."), item)
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value)) or "none"
    else:
        yield name, GAP if value in (None, "") else str(value)
