"""Holes: a document in which `{choice: [...]}`, `{int: [lo, hi]}`, `{uniform: ...}` or `{log_uniform: ...}` stands
for a value. Here they are found, counted, drawn, enumerated and filled.

A *point* says how each open hole is filled: path of the hole -> index of the option, or the number. A hole inside
an option of a choice is open only where that option is taken; its path is the literal one in the document,
such as `model.stem.choice[1].norm`, or `model.stem.choice.conv.norm` where the options have names.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .errors import SpecError, nearest, one_of, short
from .spec.files import Document, Location, show_path

KINDS = ("choice", "int", "uniform", "log_uniform")
Point = dict[str, int | float]


@dataclass(frozen=True)
class Hole:
    """One hole. `options` are those of a choice, `low` and `high` the limits of the others (both included).

    `keys` are what the options stand under: their names, or their places in a list. `inner` are the holes in each.
    """

    path: Location
    kind: str
    options: tuple[Any, ...] = ()
    keys: tuple[str | int, ...] = ()
    inner: tuple[tuple[Hole, ...], ...] = ()
    low: float = 0.0
    high: float = 0.0

    @cached_property
    def name(self) -> str:
        """The path as people write it: the hole's key in points and assignments."""
        return show_path(self.path)

    @property
    def count(self) -> float:
        """How many ways there are to fill it; infinite for a continuous hole."""
        if self.kind == "choice":
            return sum(math.prod(h.count for h in holes) for holes in self.inner)
        if self.kind == "int":
            return self.high - self.low + 1
        return math.inf if self.low < self.high else 1

    def draw(self, rng: random.Random) -> int | float:
        """Draw an option's index or a number."""
        if self.kind == "choice":
            return rng.randrange(len(self.options))
        if self.kind == "int":
            return rng.randint(int(self.low), int(self.high))
        return self.at(rng.random())

    def at(self, share: float) -> int | float:
        """Return the number at a share (0 <= share < 1) of the range, which for log_uniform is that of the logarithm.

        Holes of one kind can thus share a draw, each within its own limits.
        """
        if self.kind == "int":
            return int(self.low) + math.floor(share * (self.high - self.low + 1))
        if self.kind == "uniform":
            return self.clip(self.low + share * (self.high - self.low))
        low, high = math.log(self.low), math.log(self.high)
        return self.clip(math.exp(low + share * (high - low)))

    def clip(self, value: float) -> float:
        """Return the value within the limits: exp(log(x)) may leave them by a rounding."""
        return min(max(value, self.low), self.high)


def is_hole(value: Any) -> bool:
    """Tell whether a value of a document is a hole: a mapping with one key, which is a kind of hole."""
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS


def find(document: Document) -> tuple[Hole, ...]:
    """Return the document's outermost holes in reading order; SpecError with file:line for a bad one."""
    return _find(document, document.data, ())


def _find(document: Document, value: Any, path: Location) -> tuple[Hole, ...]:
    if is_hole(value):
        return (_read(document, value, path),)
    if isinstance(value, dict) and len(value) == 1:
        (name,) = value
        hint = nearest(name, KINDS)
        if hint:
            raise document.error((*path, name), f"unknown kind of hole {short(name)}; expected {one_of(KINDS)}{hint}")
    if isinstance(value, dict):
        return tuple(hole for key, item in value.items() for hole in _find(document, item, (*path, key)))
    if isinstance(value, list):
        return tuple(hole for index, item in enumerate(value) for hole in _find(document, item, (*path, index)))
    return ()


def _read(document: Document, value: dict[str, Any], path: Location) -> Hole:
    ((kind, content),) = value.items()
    at = (*path, kind)
    if kind == "choice":
        if not isinstance(content, list | dict) or not content:
            raise document.error(
                at, f"choice needs a list (or a mapping, name: option) with at least one option, got {short(content)}"
            )
        named = content if isinstance(content, dict) else dict(enumerate(content))
        keys, options = tuple(named), tuple(named.values())
        repeated = [option for index, option in enumerate(options) if option in options[:index]]
        if repeated:
            raise document.error(at, f"choice holds {short(repeated[0])} twice")
        inner = tuple(_find(document, option, (*at, key)) for key, option in zip(keys, options, strict=True))
        return Hole(path, kind, options, keys, inner)
    if not (isinstance(content, list) and len(content) == 2 and all(type(v) in (int, float) for v in content)):
        raise document.error(at, f"{kind} needs [low, high], two numbers, got {short(content)}")
    low, high = content
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise document.error(at, f"{kind} needs low <= high, both finite, got [{low}, {high}]")
    if kind == "int" and not (type(low) is int and type(high) is int):
        raise document.error(at, f"int needs whole numbers, got [{low}, {high}]")
    if kind == "log_uniform" and low <= 0:
        raise document.error(at, f"log_uniform needs low > 0, got {low}")
    return Hole(path, kind, low=low, high=high)


def count(holes: tuple[Hole, ...]) -> float:
    """Return the number of points; infinite where a continuous hole is open."""
    return math.prod(hole.count for hole in holes)


def draw(holes: tuple[Hole, ...], rng: random.Random) -> Point:
    """Draw a point: each open hole independently, choices uniformly over their options."""
    point: Point = {}
    for hole in holes:
        value = hole.draw(rng)
        point[hole.name] = value
        if hole.kind == "choice":
            point.update(draw(hole.inner[int(value)], rng))
    return point


def enumerate_points(holes: tuple[Hole, ...]) -> Iterator[Point]:
    """Yield every point, the last hole changing fastest; SpecError where a hole is continuous."""
    if not holes:
        yield {}
        return
    first, rest = holes[0], holes[1:]
    for head in _ways(first):
        for tail in enumerate_points(rest):
            yield {**head, **tail}


def _ways(hole: Hole) -> Iterator[Point]:
    if hole.kind == "choice":
        for index, inner in enumerate(hole.inner):
            for nested in enumerate_points(inner):
                yield {hole.name: index, **nested}
    elif hole.kind == "int":
        for value in range(int(hole.low), int(hole.high) + 1):
            yield {hole.name: value}
    elif hole.low == hole.high:
        yield {hole.name: hole.low}
    else:
        raise SpecError(f"{hole.name}: a {hole.kind} hole has no list of values; use choice or int to enumerate")


def fill(data: Any, holes: tuple[Hole, ...], point: Point) -> Any:
    """Return the data with every hole filled as the point says. Untouched parts are shared, not copied."""
    return _fill(data, holes, point, 0)


def _fill(data: Any, holes: tuple[Hole, ...], point: Point, depth: int) -> Any:
    """Fill holes in data that itself stands `depth` steps below the document's root."""
    for hole in holes:
        data = _put(data, hole.path[depth:], _content(hole, point))
    return data


def _content(hole: Hole, point: Point) -> Any:
    value = point[hole.name]
    if hole.kind == "choice":
        # An inner hole's path begins with its choice's own, then "choice" and the option's key.
        return _fill(hole.options[int(value)], hole.inner[int(value)], point, len(hole.path) + 2)
    return int(value) if hole.kind == "int" else value


def _put(data: Any, path: Location, value: Any) -> Any:
    if not path:
        return value
    key, rest = path[0], path[1:]
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[key] = _put(data[key], rest, value)  # type: ignore[index]
    return copy


def assignment(holes: tuple[Hole, ...], point: Point) -> dict[str, Any]:
    """Return path -> value for every open hole: an option's name, or the option as filled where it has none."""
    values: dict[str, Any] = {}
    for hole in holes:
        key = hole.keys[int(point[hole.name])] if hole.kind == "choice" else None
        values[hole.name] = key if isinstance(key, str) else _content(hole, point)
        if hole.kind == "choice":
            values.update(assignment(hole.inner[int(point[hole.name])], point))
    return values
