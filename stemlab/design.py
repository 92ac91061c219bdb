"""The design of an ablation: which arms its factors make, and the draws that all arms share.

A *factor* is a `choice` hole, a *nuisance* any other. Holes that say the same in several options of an outer choice,
such as `norm` in each of two stems, are one factor: its path leaves the options out.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from . import space
from .analysis.labels import compact, stem_label
from .errors import nearest, one_of, short
from .fractional import fraction
from .space import Hole, Point
from .spec import AblationSettings
from .spec.claims import level_name
from .spec.files import Document, Location, show_path

if TYPE_CHECKING:
    import pandas as pd

MOST_ARMS = 4096

RESERVED = (
    "arm", "draw", "seed", "trial", "status", "proposal", "value", "error", "match_error", "depth", "mlp_hidden",
    "flops", "bias_adds", "params", "activations", "seconds", "images_per_second", "loss", "top1", "top1_error",
    "test_top1", "test_loss", "epoch", "reused_from",
)  # fmt: skip
"""Columns of a study's records: no factor is called so."""


@dataclass(frozen=True)
class Factor:
    """A factor: its short name, its path, and what its levels are called, the baseline first."""

    name: str
    path: str
    levels: tuple[str, ...]


@dataclass(frozen=True)
class Nuisance:
    """What is drawn: its short name, its path, its widest limits, and whether it is drawn on a logarithmic scale."""

    name: str
    path: str
    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class Arm:
    """One setting of all open factors: its label, factor -> level, and which options those are."""

    number: int
    label: str
    levels: dict[str, str]
    point: Point


@dataclass(frozen=True)
class Design:
    """Arms x draws. `baseline` is the first arm; `note` says in words how the arms were chosen.

    `inner` says which arms stand for an option that holds other factors when it is compared with another option: all,
    `averaged`, or the one at its own `baseline`.

    A draw holds a share (0..1) of the range for each nuisance: holes of one nuisance with different limits, in
    different arms, are drawn at the same place of their range.
    """

    factors: tuple[Factor, ...]
    nuisances: tuple[Nuisance, ...]
    arms: tuple[Arm, ...]
    draws: tuple[dict[str, float], ...]
    note: str
    inner: Literal["averaged", "baseline"]
    holes: tuple[Hole, ...]

    @property
    def baseline(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """Return factor -> levels, the baseline first."""
        return {factor.name: factor.levels for factor in self.factors}

    def arm_levels(self) -> pd.DataFrame:
        """Return the levels of each arm: a row an arm, a column a factor, missing where the arm does not open it."""
        import pandas as pd

        rows = {arm.label: arm.levels for arm in self.arms}
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(self.levels)).rename_axis("arm")

    @cached_property
    def cells(self) -> tuple[tuple[Arm, int], ...]:
        """Every (arm, number of the draw), draw by draw: the place of a cell is its `proposal` in the records."""
        return tuple((arm, draw) for draw in range(len(self.draws)) for arm in self.arms)

    def point(self, arm: Arm, draw: int) -> Point:
        """Return how a cell fills the holes."""
        point = dict(arm.point)
        for path, hole in _walk(self.holes, arm.point):
            if hole.kind != "choice":
                point[hole.name] = hole.at(self.draws[draw][path])
        return point

    def drawn(self, arm: Arm, draw: int) -> dict[str, float]:
        """Return nuisance -> value for a cell, of those that are open in its arm."""
        names = {nuisance.path: nuisance.name for nuisance in self.nuisances}
        share = self.draws[draw]
        return {
            names[path]: float(hole.at(share[path]))
            for path, hole in _walk(self.holes, arm.point)
            if hole.kind != "choice"
        }

    @classmethod
    def of(cls, settings: AblationSettings, document: Document) -> Design:
        """Return the design of a study file; SpecError with file:line where its holes and settings do not fit."""
        holes = space.find(document)
        found = _by_path(holes)
        names = _names(settings.names, found, document)
        chosen = _Baseline(
            settings.baseline, {p: h for p, h in found.items() if h[0].kind == "choice"}, names, document
        )
        if not chosen.levels:
            raise document.error((), "an ablation needs at least one choice to compare, and the file has none")
        drawn = {path: holes for path, holes in found.items() if path not in chosen.levels}
        if settings.draws > 1 and not drawn:
            raise document.error(
                ("ablate", "draws"), f"draws (={settings.draws}) need a hole to draw: int, uniform or log_uniform"
            )
        points, note = _points(settings, holes, chosen, document)
        factors = tuple(Factor(names[path], path, tuple(levels)) for path, levels in chosen.levels.items())
        return cls(
            factors=factors,
            nuisances=tuple(
                Nuisance(
                    names[path],
                    path,
                    min(hole.low for hole in same),
                    max(hole.high for hole in same),
                    all(hole.kind == "log_uniform" for hole in same),
                )
                for path, same in drawn.items()
            ),
            arms=tuple(_arm(number, point, holes, names) for number, point in enumerate(points)),
            # Each number has a generator of its own: more draws, or another nuisance, leave the others as they were.
            draws=tuple(
                {path: random.Random(f"{settings.draw_seed}/{path}/{number}").random() for path in drawn}
                for number in range(settings.draws)
            ),
            note=note,
            inner="baseline" if settings.design == "one_at_a_time" else "averaged",
            holes=holes,
        )


def _walk(
    holes: tuple[Hole, ...], point: Point | None, outer: Location = (), short: Location = ()
) -> Iterator[tuple[str, Hole]]:
    """Yield (path without options, hole) of the open holes; of all, with no point."""
    for hole in holes:
        inside = hole.path[len(outer) :]
        here = (*short, *inside) if inside else (*short, "value")  # an option that is itself a hole
        yield show_path(here), hole
        if hole.kind == "choice":
            for index, (key, inner) in enumerate(zip(hole.keys, hole.inner, strict=True)):
                if point is None or point[hole.name] == index:
                    yield from _walk(inner, point, (*hole.path, "choice", key), here)


def _by_path(holes: tuple[Hole, ...]) -> dict[str, list[Hole]]:
    found: dict[str, list[Hole]] = {}
    for path, hole in _walk(holes, None):
        found.setdefault(path, []).append(hole)
    return found


def _names(wanted: dict[str, str], paths: Collection[str], document: Document) -> dict[str, str]:
    """Return path -> the name asked for, or the fewest of its last parts that tell it from the others and RESERVED."""
    for path, name in wanted.items():
        at = ("ablate", "names", path)
        if path not in paths:
            raise document.error(at, f"there is no hole {short(path)}; expected {one_of(paths)}{nearest(path, paths)}")
        if name in RESERVED or list(wanted.values()).count(name) > 1:
            raise document.error(at, f"{short(name)} is taken by another column of the records; expected another name")
    names = dict(wanted)
    for path in paths:
        parts = path.split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            others = (".".join(other.split(".")[-length:]) for other in paths if other != path)
            if name not in (*RESERVED, *wanted.values(), *others) or length == len(parts):
                names.setdefault(path, name)
                break
    return names


def level(path: str, key: str | int, option: Any) -> str:
    """Return what an option of a choice is called: its name, or the value in short."""
    if isinstance(key, str):
        return key
    if isinstance(option, dict) and path.rpartition(".")[2] == "stem":
        return stem_label(json.dumps(option, sort_keys=True))
    return compact(option) if isinstance(option, list | dict) else level_name(option)


class _Baseline:
    """The levels of each factor, and which options of each choice come first."""

    def __init__(
        self, wanted: dict[str, Any], choices: dict[str, list[Hole]], names: dict[str, str], document: Document
    ) -> None:
        self.levels: dict[str, list[str]] = {}
        self.first: dict[str, int] = {}
        paths = {**{path: path for path in choices}, **{names[path]: path for path in choices}}
        for key in wanted:
            if key not in paths:
                raise document.error(
                    ("ablate", "baseline", key),
                    f"unknown factor {short(key)}; expected {one_of(names[p] for p in choices)}{nearest(key, paths)}",
                )
        for path, holes in choices.items():
            asked = next(((key, wanted[key]) for key in wanted if paths[key] == path), None)
            found: dict[str, None] = {}
            for hole in holes:
                labels = [level(path, key, option) for key, option in zip(hole.keys, hole.options, strict=True)]
                self._check(labels, hole, document)
                found |= dict.fromkeys(labels)
                at = 0
                if asked is not None:
                    at = next((i for i, o in enumerate(hole.options) if asked[1] in (labels[i], o)), 0)
                self.first[hole.name] = at
            self.levels[path] = list(found)
            if asked is not None:
                first = asked[1] if asked[1] in found else self._called(asked, holes, found, path, document)
                self.levels[path] = [first, *(label for label in found if label != first)]

    @staticmethod
    def _check(labels: list[str], hole: Hole, document: Document) -> None:
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise document.error(
                hole.path, f"two options are called {short(twice)}; give them names: {{choice: {{name: option, ...}}}}"
            )

    @staticmethod
    def _called(asked: tuple[str, Any], holes: list[Hole], labels: Iterable[str], path: str, document: Document) -> str:
        for hole in holes:
            for key, option in zip(hole.keys, hole.options, strict=True):
                if option == asked[1] and type(option) is type(asked[1]):
                    return level(path, key, option)
        raise document.error(
            ("ablate", "baseline", asked[0]),
            f"{short(asked[1])} is no level of {asked[0]}; expected {one_of(labels)}{nearest(asked[1], labels)}",
        )


def _points(
    settings: AblationSettings, holes: tuple[Hole, ...], chosen: _Baseline, document: Document
) -> tuple[list[Point], str]:
    """Return how each arm fills the choices, the baseline first, and in words how they were chosen."""
    choices = _choices(holes)
    full = math.prod(_arms(hole) for hole in choices)
    if settings.design == "one_at_a_time":
        points = list(_one_at_a_time(choices, chosen.first))
        return points, f"one factor at a time is changed from the baseline: {len(points)} of {full} combinations"
    if settings.design == "fractional":
        return _fraction(settings, choices, chosen, full, document)
    if full > MOST_ARMS:
        raise document.error(
            ("ablate", "design"),
            f"the factors have {full} combinations, above {MOST_ARMS}; use design: one_at_a_time or fractional",
        )
    return list(_full(choices, chosen.first)), f"all {full} combinations of the factors"


def _arms(hole: Hole) -> int:
    return sum(math.prod(map(_arms, _choices(inner))) for inner in hole.inner)


def _order(hole: Hole, first: dict[str, int]) -> list[int]:
    """The options of a choice, the baseline first."""
    return sorted(range(len(hole.options)), key=lambda index: index != first[hole.name])


def _choices(holes: Iterable[Hole]) -> tuple[Hole, ...]:
    return tuple(hole for hole in holes if hole.kind == "choice")


def _ways(
    holes: Sequence[Hole], first: dict[str, int], within: Callable[[Sequence[Hole], dict[str, int]], Iterator[Point]]
) -> list[list[Point]]:
    """Return, for each choice, its options with the ways to fill those within."""
    return [
        [
            {hole.name: index, **inner}
            for index in _order(hole, first)
            for inner in within(_choices(hole.inner[index]), first)
        ]
        for hole in holes
    ]


def _full(holes: Sequence[Hole], first: dict[str, int]) -> Iterator[Point]:
    for parts in product(*_ways(holes, first, _full)):
        yield {name: value for part in parts for name, value in part.items()}


def _one_at_a_time(holes: Sequence[Hole], first: dict[str, int]) -> Iterator[Point]:
    ways = _ways(holes, first, _one_at_a_time)
    base: Point = {name: value for way in ways for name, value in way[0].items()}
    yield base
    for way in ways:
        for other in way[1:]:
            yield {**{name: value for name, value in base.items() if name not in way[0]}, **other}


def _fraction(
    settings: AblationSettings, choices: tuple[Hole, ...], chosen: _Baseline, full: int, document: Document
) -> tuple[list[Point], str]:
    at = ("ablate", "design")
    assert settings.resolution is not None
    for hole in choices:
        if any(inner_hole.kind == "choice" for inner in hole.inner for inner_hole in inner):
            raise document.error(at, f"a fractional design needs factors side by side; {hole.name} has others inside")
    counts = {len(hole.options) for hole in choices}
    if len(counts) > 1 or not counts <= {2, 3, 5, 7}:
        sizes = ", ".join(f"{hole.name} has {len(hole.options)}" for hole in choices)
        raise document.error(
            at, f"a regular fraction needs as many levels of each factor, 2, 3, 5 or 7; {sizes}; use one_at_a_time"
        )
    rows = fraction(len(choices), counts.pop(), settings.resolution)
    if len(rows) == full:
        note = f"all {full} combinations of the factors: no smaller fraction has resolution {settings.resolution}"
    else:
        note = f"a regular fraction of resolution {settings.resolution}: {len(rows)} of {full} combinations"
    orders = [_order(hole, chosen.first) for hole in choices]
    points: list[Point] = [
        {hole.name: order[digit] for hole, order, digit in zip(choices, orders, row, strict=True)} for row in rows
    ]
    return points, note


def _arm(number: int, point: Point, holes: tuple[Hole, ...], names: dict[str, str]) -> Arm:
    levels: dict[str, str] = {}
    for path, hole in _walk(holes, point):
        if hole.kind == "choice":
            index = int(point[hole.name])
            levels[names[path]] = level(path, hole.keys[index], hole.options[index])
    return Arm(number, _label(levels), levels, point)


def _label(levels: dict[str, str]) -> str:
    """Return the levels in reading order; a bare number or `none` says what it is of."""
    words = []
    for name, text in levels.items():
        bare = text in ("none", "true", "false", "null") or text.replace(".", "", 1).replace("e-", "", 1).isdigit()
        words.append(f"{name}={text}" if bare else text)
    return ", ".join(words)
