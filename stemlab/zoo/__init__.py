"""Published stems: one YAML file each, with citation, model and golden counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import SpecError, nearest, one_of
from ..spec import ModelSpec
from ..spec.stem import zoo_files


@dataclass(frozen=True)
class ZooEntry:
    """A published model: what it is, where it was published, and the counts that its authors' code gives.

    `golden` holds flops (multiply-adds), bias_adds, params and activations of the whole model.
    """

    name: str
    title: str
    citation: str
    year: int
    source: str
    model: ModelSpec
    golden: dict[str, int]
    notes: str = ""


def names() -> list[str]:
    """Return the names of all entries, sorted."""
    return sorted(zoo_files())


def get(name: str) -> ZooEntry:
    """Return one entry by name; SpecError names the nearest one."""
    files = zoo_files()
    if name not in files:
        raise SpecError(f"no entry {name!r} in the zoo; expected {one_of(sorted(files))}{nearest(name, files)}")
    data: dict[str, Any] = yaml.safe_load(files[name].read_text(encoding="utf-8"))
    return ZooEntry(name=name, **{**data, "model": ModelSpec.model_validate(data["model"])})
