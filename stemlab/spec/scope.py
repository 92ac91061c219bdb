"""Scope: what the names of a relation stand for, in one filling of a study's document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .arithmetic import Unworkable
from .base import Spec
from .files import Location, show_path
from .relation import SECTIONS
from .stem import ColumnarStem

_NOTHING = object()
_COLUMNS = ("kernels", "strides", "paddings", "norm", "act")


class Scope:
    """Values by path: as written in the filled document, else the default that its specs have for it.

    `specs` are those of the sections that are valid; `cost` gives a quantity of the matched model. A column of a
    stem (`strides`, ...) is a list with an item for each convolution, also where one value was written for all.
    """

    def __init__(
        self, written: Mapping[str, Any], specs: Mapping[str, Spec], cost: Callable[[str], float] | None = None
    ) -> None:
        self.written, self.specs, self.cost = written, specs, cost

    def __call__(self, path: Location) -> Any:
        """Return the value of a path or quantity; Unworkable where this filling has none."""
        if path[0] not in SECTIONS:
            assert self.cost is not None
            value = self.cost(str(path[0]))
            return int(value) if value.is_integer() else value
        found = self._find(path)
        if found is _NOTHING:
            raise Unworkable(f"there is no {show_path(path)} where the holes are filled so")
        return found

    def __contains__(self, path: Location) -> bool:
        """Tell whether there is a value, which may be null."""
        return self._find(path) is not _NOTHING

    def paths(self) -> Iterator[str]:
        """Yield all paths without indices, as people write them."""
        for source in (self.written, self.specs):
            yield from _paths(source, "")

    def _find(self, path: Location) -> Any:
        written = _walk(self.written, path)
        if written is not _NOTHING and written is not None:
            return _plain(written)
        default = _walk(self.specs, path)
        return written if default is _NOTHING else _plain(default)


def _walk(value: Any, path: Location) -> Any:
    for key in path:
        value = _step(value, key)
        if value is _NOTHING:
            break
    return value


def _step(value: Any, key: str | int) -> Any:
    if isinstance(key, int):
        is_there = isinstance(value, list | tuple) and -len(value) <= key < len(value)
        return value[key] if is_there else _NOTHING
    if isinstance(value, Spec):
        return getattr(value, key) if key in type(value).model_fields else _NOTHING
    if not isinstance(value, Mapping):
        return _NOTHING
    if isinstance(value.get("channels"), list) and key in ColumnarStem.model_fields:
        return _column(value, key)
    return value.get(key, _NOTHING)


def _column(stem: Mapping[str, Any], key: str) -> Any:
    value = stem.get(key)
    if value is None:
        value = ColumnarStem.model_fields[key].default
    return [value] * len(stem["channels"]) if key in _COLUMNS and not isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.canonical()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _paths(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, Spec):
        items = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, Mapping):
        columns = dict.fromkeys(_COLUMNS) if isinstance(value.get("channels"), list) else {}
        items = {**columns, **value}
    else:
        return
    for name, item in items.items():
        here = f"{at}.{name}" if at else str(name)
        yield here
        yield from _paths(item, here)
