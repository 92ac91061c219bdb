"""What a set on disk holds, looked up once: when a study is read, and again by those who train on it.

Importing this is cheap: whoever has no set on disk needs nothing of what reads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..errors import SpecError, StemlabError
from ..spec.data import FOLDER, Contents, DataSpec, is_on_disk
from ..spec.files import Document

if TYPE_CHECKING:
    from ..records import StudyFolder
    from .folder import Progress, Survey

Preparing = Callable[[str, int, int], None]
"""Is told what is done to a set before anything is trained, to how many images that was done, and of how many."""

_EVERY = 10.0


def with_contents(document: Document, preparing: Preparing | None = None) -> Document:
    """Return a study's document with what its data set holds; as it is where the set is not on disk.

    The path of a folder is made absolute, since those who train may run elsewhere. SpecError with file:line where the
    set cannot be used, is not the one that the document tells of, or where it is to be searched for.
    """
    data = document.data.get("data") if isinstance(document.data, dict) else None
    name = data.get("name") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(name, str):
        for path, value in ((("data", "name"), name), (("data",), data)):
            if isinstance(value, dict) and "choice" in value and any(map(is_on_disk, _texts(value))):
                raise document.error(
                    path,
                    "a set on disk cannot be one of several, since all trials need to know what it holds; make a study "
                    "of each set",
                )
        return document
    if not is_on_disk(name):
        return document
    try:
        name, found = look_up(name, partial(preparing, "looking at images") if preparing else None)
        told = data.get("contents")
        if told is not None and told != found.canonical():
            raise SpecError(
                f"{name}: holds other images than when this study was made; bring them back, or leave out contents"
            )
    except SpecError as error:
        raise document.error(("data", "name"), str(error)) from None
    changed = {**document.data, "data": {**data, "name": name, "contents": found.canonical()}}
    return Document(changed, document.source, document.places)


def look_up(name: str, progress: Progress | None = None) -> tuple[str, Contents]:
    """Return the full name of a set on disk, and what it holds."""
    if name.startswith(FOLDER):
        from .folder import survey
        from .listing import resolved

        return FOLDER + str(resolved(name.removeprefix(FOLDER))), survey(name, progress).contents
    from .timm_sets import read

    return name, read(name).contents


def found(spec: DataSpec, progress: Progress | None = None) -> DataSpec:
    """Return the spec of a set with what it holds; as it is where that is not on disk."""
    if not spec.on_disk:
        return spec
    name, contents = look_up(spec.name, progress)
    return spec.replace(name=name, contents=contents)


def require(spec: DataSpec) -> None:
    """SpecError unless it is known what a set on disk holds."""
    if spec.contents is None:
        raise SpecError(f"{spec.name}: what it holds has not been looked up (stemlab.data.contents.found)")


def check(spec: DataSpec, contents: Contents) -> None:
    """StemlabError unless a set on disk is the one that a trial is to be trained on."""
    if spec.contents != contents:
        raise StemlabError(
            f"{spec.name}: holds other images here than when the study was made: {_shown(contents)}, not "
            f"{'' if spec.contents is None else _shown(spec.contents)}"
        )


def surveyed(data: dict[str, Any]) -> tuple[Survey, DataSpec | None] | None:
    """Return what was found in the folder of a study's data, and the spec unless there are holes in it.

    None where the data are no folder.
    """
    name = data.get("name")
    if not isinstance(name, str) or not name.startswith(FOLDER):
        return None
    from .folder import survey

    try:
        return survey(name), DataSpec.model_validate(data)
    except ValidationError:
        return survey(name), None


def prepare(spec: DataSpec, preparing: Preparing) -> None:
    """Make a set that needs no files, where that has not been done on this machine."""
    if spec.name == "digits":
        from .scans import scans

        scans(spec)
    elif spec.name == "fractals":
        from .fractals import fractals

        fractals(spec, partial(preparing, "making fractals"))


def tell(data: dict[str, Any], folder: StudyFolder, note: Callable[[str], None]) -> None:
    """Say which images of a folder are skipped, and list them in data.json."""
    looked_at = surveyed(data)
    if looked_at is None:
        return
    survey, spec = looked_at
    file = folder.write_json("data.json", survey.as_dict(spec))
    summary = survey.summary(spec)
    if summary:
        note(f"{summary} (all of them: {file})")


def in_lines(note: Callable[[str], None]) -> Preparing:
    """Return what says every ten seconds how far it has come."""
    said = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            note(f"{what}: {done:,} of {total:,}")

    return tell


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _shown(contents: Contents) -> str:
    return ", ".join(f"{name} {value}" for name, value in contents.canonical().items())
