"""Which images a folder holds, by their names alone: a folder for each class, with or without parts above them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecError
from .images import EXTENSIONS

PARTS = ("train", "validation", "test")

_CALLED = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class File:
    """An image as it is listed: its name below the folder, its class, its part, its size and when it was changed."""

    name: str
    of_class: str
    part: str
    size: int
    changed: int


@dataclass(frozen=True)
class Listing:
    """The images of a folder in the order of their names; its classes by part; what else lies there, counted."""

    root: Path
    files: tuple[File, ...]
    classes: dict[str, tuple[str, ...]]
    ignored: Counter[str]

    @property
    def digest(self) -> str:
        """32 hex digits of all that is listed, and where: another one as soon as a file is changed."""
        found = hashlib.sha256(str(self.root).encode())
        for file in self.files:
            found.update(f"\n{file.name}\0{file.size} {file.changed}".encode("utf-8", "surrogateescape"))
        return found.hexdigest()[:32]


def resolved(path: str) -> Path:
    """Return a path as it is from anywhere."""
    return Path(os.path.abspath(os.path.expanduser(path)))  # unlike Path's, these never raise, however strange the path


def list_images(path: str) -> Listing:
    """List the images of a folder; SpecError where it is none, or has no folders of classes."""
    if not path:
        raise SpecError("a set folder:PATH needs its path")
    root = resolved(path)
    if not os.path.exists(root):
        raise SpecError(f"{str(root)[:300]}: no such folder")
    if not os.path.isdir(root):
        raise SpecError(f"{root}: is a file; expected a folder that has a folder for each class")
    above = _parts(root)
    files, ignored = list[File](), Counter[str]()
    for part, folder in above.items():
        for names, entry in _walk(folder, (), set()):
            problem = _ignored(names)
            if problem:
                ignored[problem] += 1
                continue
            size, changed = _stat(entry)
            files.append(File(os.path.relpath(entry.path, root), names[0], part, size, changed))
    files.sort(key=lambda file: file.name)
    classes = {part: tuple(_folders(folder)) for part, folder in above.items()}
    return Listing(root, tuple(files), classes, ignored)


def _parts(root: Path) -> dict[str, Path]:
    """Return the folders of the parts: the whole as the training part where there are none."""
    found: dict[str, Path] = {}
    folders = _folders(root)
    named = [name for name in folders if name.lower() in _CALLED]
    with_classes = [name for name in named if _folders(root / name)]
    if not any(_CALLED[name.lower()] == "train" for name in with_classes):
        if with_classes and len(named) == len(folders):
            raise SpecError(f"{root}: there is {', '.join(named)}, and nothing to train on; expected train beside it")
        return {"train": root}
    for name in with_classes:
        part = _CALLED[name.lower()]
        if part in found:
            raise SpecError(f"{root}: {found[part].name} and {name} are both the {part} part; expected one of them")
        found[part] = root / name
    return found


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise SpecError(f"{folder}: cannot be read: {error.strerror}") from None


def _walk(
    folder: Path | str, above: tuple[str, ...], seen: set[tuple[int, int]]
) -> Iterator[tuple[tuple[str, ...], os.DirEntry[str]]]:
    """Yield the files below a folder, and their names with those of the folders above them."""
    try:
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:  # a link to a folder above it
            return
        seen = {*seen, (here.st_dev, here.st_ino)}
        entries = list(os.scandir(folder))
    except OSError as error:
        raise SpecError(f"{folder}: cannot be read: {error.strerror}") from None
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, (*above, entry.name), seen)
        elif entry.is_file() or entry.is_symlink():
            yield (*above, entry.name), entry


def _stat(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Return the size and time of a file; zeros for a link to nowhere, which is found out when it is read."""
    try:
        found = entry.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _ignored(names: tuple[str, ...]) -> str:
    """Return what a file is that is none of the images; nothing if it is one. `names` ends with its own."""
    if any(name.startswith(".") for name in names):
        return "hidden"
    if not names[-1].lower().endswith(EXTENSIONS):
        return "no image by its name"
    return "outside the folders of classes" if len(names) == 1 else ""
