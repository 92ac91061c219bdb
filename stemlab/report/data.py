"""What a folder of images was found to hold, as every report says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ..analysis.result import Result
from ..errors import StudyError
from ..quantities import first_of
from ..records import StudyFolder
from .numbers import count
from .sections import Section
from .tables import Column, Table

_NAMED = 10
_CALLED = {"train": "training"}


def data_section(folder: StudyFolder) -> Section:
    """Return the section on a study's data.json: empty where there is none, or none that can be read."""
    heading = "Data"
    try:
        found = folder.read_json("data.json")
        return Section("data", heading, tuple(_words(found)), tables=_table(found))
    except (StudyError, KeyError, TypeError, AttributeError):
        return Section("data", heading)


def _words(found: Mapping[str, Any]) -> Iterator[str]:
    skipped = len(found["files"])
    parts = ", ".join(f"{images} in the {_CALLED.get(part, part)} part" for part, images in found["parts"].items())
    yield (
        f"{found['folder']} has {len(found['classes'])} classes. Of {count(found['images'], 'image')} "
        f"{found['usable']} are used{f': {parts}' if parts else ''}."
    )
    if skipped:
        yield f"{count(skipped, 'image')} {'is' if skipped == 1 else 'are'} skipped; data.json names each."
    if found["empty_classes"]:
        yield f"Left out, having no image to train on: {first_of(found['empty_classes'], _NAMED)}."
    for part, names in found["absent_classes"].items():
        absent = first_of(names, _NAMED)
        yield f"The {part} part has no image of {absent}: what is said of it is said of the other classes."
    if found["in_two_parts"]:
        yield (
            f"{count(found['in_two_parts'], 'image')} of the held-out parts can be found, byte for byte, in another "
            "part: the accuracies are too good."
        )


def _table(found: Mapping[str, Any]) -> tuple[Table, ...]:
    rows = [
        {"what": what, "which": which, "images": images}
        for what, name in (("skipped", "skipped"), ("converted", "converted"), ("not looked at", "ignored"))
        for which, images in found[name].items()
    ]
    if not rows:
        return ()
    columns = [
        Column("What became of it", lambda row: str(row["what"]), text=True),
        Column("File", lambda row: str(row["which"]), text=True),
        Column("Number", lambda row: str(row["images"])),
    ]
    method = (
        "Every image was read and decoded before anything was trained. Converted images are trained on in three bytes "
        "a pixel; numbers of 16 bits are scaled down."
    )
    return (Table.of("data", Result("Images that are not as others", pd.DataFrame(rows), method), columns),)
