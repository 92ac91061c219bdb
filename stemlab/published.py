"""The files of published stems as plain data: what specs and stemlab.zoo read, before anything is checked."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import yaml

from .errors import nearest

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast, where PyYAML has it


@functools.cache
def _files() -> dict[str, Any]:
    """Return the files by name."""
    folder = resources.files("stemlab").joinpath("zoo")
    return {file.name[:-5]: file for file in folder.iterdir() if file.name.endswith(".yaml")}


@functools.cache
def _entries(file: str) -> dict[str, dict[str, Any]]:
    """Return the entries of one file: one for each of its `scales`, which say what differs from the rest of it."""
    common = yaml.load(_files()[file].read_text(encoding="utf-8"), Loader=_Loader)
    scales = common.pop("scales", None)
    if scales is None:
        return {file: common}
    return {
        f"{file}_{scale}": {**common, **own, "scale": scale, "stem": {**common.get("stem", {}), **own.get("stem", {})}}
        for scale, own in scales.items()
    }


def names() -> list[str]:
    """Return the names of all entries, sorted."""
    return sorted(name for file in _files() for name in _entries(file))


def read(name: str) -> dict[str, Any]:
    """Return what the zoo says of one entry; KeyError, with what to say, where there is none of that name."""
    low = name.lower()
    # The longest file name that begins the entry's: other files need not be read.
    for file in sorted((file for file in _files() if f"{low}_".startswith(f"{file}_")), key=len, reverse=True):
        if low in _entries(file):
            return {"name": low, **_entries(file)[low]}
    known = names()
    hint = nearest(low, known) or "; `stemlab zoo` lists them"
    raise KeyError(f"no stem named {name!r} among the {len(known)} of the zoo{hint}")
