"""A picture as a notebook shows it and a file holds it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecError, short
from ..spec.files import write_text


@dataclass(frozen=True)
class Diagram:
    """A picture of stems: `svg` is the whole document. A notebook shows it as it is."""

    svg: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to a file, whole or not at all; SpecError where the path cannot be that of an SVG."""
        target = _checked(path)
        write_text(target, self.svg)
        return target

    def _repr_svg_(self) -> str:
        return self.svg


def _checked(path: str | os.PathLike[str]) -> Path:
    """Return the path of a picture; SpecError where none can be written there."""
    target = Path(path)
    if target.suffix.lower() != ".svg":
        raise SpecError(f"{short(os.fspath(path))} is not the name of an SVG file; expected one that ends in .svg")
    if target.is_dir():
        raise SpecError(f"{target}: is a folder; expected the name of an SVG file")
    if not os.path.isdir(target.parent):
        raise SpecError(f"{target}: cannot be written: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise SpecError(f"{target}: cannot be written: no permission to write to {target.parent}")
    return target
