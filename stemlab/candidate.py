"""From a point of a space to a trial: filled, validated, matched and within the constraints, or infeasible and why."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from . import space
from .errors import InfeasibleError, nearest, one_of, short
from .matching import MatchResult, match
from .space import Hole, Point
from .spec import (
    BodySpec,
    DataSpec,
    DrawsSpec,
    LatencySpec,
    MatchSpec,
    ModelSpec,
    ProbeSpec,
    StemSpec,
    StudySpec,
    TrainSpec,
    TrialSpec,
)
from .spec.base import Spec, parse_pair
from .spec.files import Document, Location, problems, show_path, validate_data
from .spec.relation import read_relation
from .spec.scope import Scope

_SECTIONS: dict[str, type[Spec]] = {"data": DataSpec, "train": TrainSpec}
_MODEL_SECTIONS: dict[str, type[Spec]] = {"stem": StemSpec, "body": BodySpec, "match": MatchSpec}
_PROBES = 2000
S = TypeVar("S", bound=StudySpec)


@dataclass(frozen=True)
class Candidate:
    """A feasible point: what it trains, and its matched cost. The rest is worked out for those that are chosen.

    It is trained by each of the `recipes`, one for each of the study's `draws`: a single one where nothing is drawn.
    """

    model: ModelSpec
    data: DataSpec
    recipes: tuple[TrainSpec, ...]
    seeds: tuple[int, ...]
    probes: ProbeSpec | None
    latency: LatencySpec | None
    matched: MatchResult
    holes: tuple[Hole, ...]
    point: Point
    draws: tuple[Point, ...]

    @property
    def train(self) -> TrainSpec:
        """The recipe: that of the first draw where there are several."""
        return self.recipes[0]

    @cached_property
    def trials(self) -> tuple[TrialSpec, ...]:
        """One trial for each draw and seed, those of a draw together."""
        return tuple(
            TrialSpec(
                model=self.model,
                data=self.data,
                train=recipe,
                seed=seed,
                probes=self.probes,
                latency=self.latency,
            )
            for recipe in self.recipes
            for seed in self.seeds
        )

    @cached_property
    def assignments(self) -> tuple[dict[str, Any], ...]:
        """What the open holes were filled with in each trial, by their paths."""
        each = (space.assignment(self.holes, {**self.point, **draw}) for draw in self.draws)
        return tuple(filled for filled in each for _ in self.seeds)

    @property
    def identity(self) -> str:
        """What makes two candidates the same proposal: the first trial's digest."""
        return self.trials[0].digest


@dataclass
class Probe:
    """What came of trying points: the feasible ones, and how often each objection (path, message) was raised."""

    feasible: list[Candidate] = field(default_factory=list)
    objections: Counter[tuple[Location, str]] = field(default_factory=Counter)
    tried: int = 0


class Candidates(Generic[S]):
    """The points of a study's space, as candidates, each to be trained once per draw and seed.

    `holes` are those to fill; the ones that `drawn` names are filled by the study's draws, the same for every point.
    """

    def __init__(self, study: S, seeds: tuple[int, ...], document: Document, drawn: DrawsSpec | None = None) -> None:
        """Read the holes of the study's document; SpecError with file:line for what no filling can mend."""
        self.study, self.seeds = study, seeds
        self.document = Document(
            {"model": study.model, "data": study.data, "train": study.train}, document.source, document.places
        )
        self._every = space.find(self.document)
        self._relations = tuple(map(read_relation, study.relations or ()))
        self._check_paths(self._check_options())
        self.holes = self._every
        self.draws: tuple[Point, ...] = ({},)
        if drawn is not None:
            self.holes, self.draws = self._split(drawn)
        self._fixed = self._share_what_is_fixed()

    @property
    def size(self) -> float:
        """The number of points, feasible or not; infinite with a continuous hole."""
        return space.count(self.holes)

    def make(self, point: Point) -> Candidate:
        """Return the candidate of a point; InfeasibleError says why there is none."""
        points = [{**point, **draw} for draw in self.draws]
        point = points[0]
        filled = space.fill(self._fixed, self._every, point)
        section = "data"
        try:
            data = DataSpec.model_validate(filled["data"])
            section = "train"
            recipes = [TrainSpec.model_validate(filled["train"])]
            for other in points[1:]:
                point = other
                recipes.append(TrainSpec.model_validate(space.fill(self._fixed, self._every, point)["train"]))
            section = "model"
            model = ModelSpec.model_validate(_with_data(filled["model"], data))
        except ValidationError as error:
            plain = space.fill(self.document.data, self._every, point)
            path, message, _ = next(problems(error, plain[section]))
            raise InfeasibleError(message, self._written((section, *path), point)) from None
        scopes = [
            (point, {"model": model, "data": data, "train": recipe})
            for point, recipe in zip(points, recipes, strict=True)
        ]
        for each in scopes:
            self._check_relations(*each)
        try:
            matched = match(model)
        except InfeasibleError as error:
            raise InfeasibleError(str(error), ("model", "match")) from None
        self._check_constraints(matched)
        for each in scopes:
            self._check_relations(*each, matched)
        study = self.study
        return Candidate(
            model,
            data,
            tuple(recipes),
            self.seeds,
            study.probes,
            study.latencies,
            matched,
            self._every,
            points[0],
            self.draws,
        )

    def points(self, rng: random.Random) -> Iterator[Point]:
        """Yield points to try: all of a small space in a shuffled order, otherwise endless draws."""
        if self.size <= _PROBES:
            points = list(space.enumerate_points(self.holes))
            rng.shuffle(points)
            yield from points
        else:
            while True:
                yield space.draw(self.holes, rng)

    def probe(self, enough: int = _PROBES) -> Probe:
        """Try up to 2,000 points, or until `enough` are feasible."""
        probe = Probe()
        for point in self.points(random.Random(0)):
            probe.tried += 1
            try:
                probe.feasible.append(self.make(point))
            except InfeasibleError as error:
                probe.objections[error.path, str(error)] += 1
            if probe.tried == _PROBES or len(probe.feasible) == enough:
                break
        return probe

    def require_feasible(self) -> None:
        """InfeasibleError, where the commonest objection stands, if no point can be found to satisfy everything."""
        probe = self.probe(enough=1)
        if probe.feasible:
            return
        # Messages with numbers in them differ from point to point; what they are about does not.
        places = Counter[Location]()
        for (path, _), times in probe.objections.items():
            places[path] += times
        ((path, times),) = places.most_common(1)
        reason = next(text for (where, text), _ in probe.objections.most_common() if where == path)
        if probe.tried > 1:
            reason = f"none of {probe.tried} points of the space is feasible; {times} fail here, such as: {reason}"
        raise self.document.infeasible(path, reason)

    def _split(self, drawn: DrawsSpec) -> tuple[tuple[Hole, ...], tuple[Point, ...]]:
        """Return the holes that are left to fill, and the draws of the others."""
        may = {hole.name: hole for hole in self._every if hole.path[0] == "train"}
        for index, path in enumerate(drawn.over):
            if path not in may:
                raise self.document.error(
                    ("search", "draws", "over", index),
                    f"{short(path)} is no hole of train that could be drawn; expected {one_of(may)}{nearest(path, may)}"
                    if may
                    else f"{short(path)} cannot be drawn: train has no holes",
                )
        taken = tuple(may[path] for path in dict.fromkeys(drawn.over))
        rng = random.Random(drawn.seed)
        draws = tuple(space.draw(taken, rng) for _ in range(drawn.count))
        return tuple(hole for hole in self._every if hole not in taken), draws

    def _check_constraints(self, matched: MatchResult) -> None:
        for name, bound in self.study.constraints.items():
            value = matched.quantity(name)
            if bound.max is not None and value > bound.max:
                raise InfeasibleError(f"{value:g} is above max {bound.max:g}", ("constraints", name))
            if bound.min is not None and value < bound.min:
                raise InfeasibleError(f"{value:g} is below min {bound.min:g}", ("constraints", name))

    def _check_relations(self, point: Point, specs: dict[str, Spec], matched: MatchResult | None = None) -> None:
        """Check the relations of fields alone, or, once the model is matched, those that name costs."""
        relations = [(i, r) for i, r in enumerate(self._relations) if bool(r.quantities) == (matched is not None)]
        if not relations:
            return
        cost = None if matched is None else matched.quantity
        scope = Scope(space.fill(self.document.data, self._every, point), specs, cost)
        for index, relation in relations:
            objection = relation.objection(scope)
            if objection is not None:
                raise InfeasibleError(objection, ("relations", index))

    def _check_paths(self, fillings: list[Scope]) -> None:
        """Refuse a relation that names a field which no filling has. The fillings have, of every hole, each option."""
        for index, relation in enumerate(self._relations):
            for path in relation.paths:
                # What an invalid filling would have by default, once it goes together, is not known.
                known = all(path[0] in filling.specs for filling in fillings)
                if known and not any(path in filling for filling in fillings):
                    names = dict.fromkeys(name for filling in fillings for name in filling.paths())
                    name = show_path(path)
                    raise self.document.error(
                        ("relations", index), f"{relation.text}: there is no {name}{nearest(name, names)}"
                    )

    def _share_what_is_fixed(self) -> Any:
        """Validate the parts without holes once, with file:line for their errors, and put the specs in their place."""
        fixed = dict(self.document.data)
        fixed["model"] = dict(fixed["model"])
        for parent, sections, path in ((fixed, _SECTIONS, ()), (fixed["model"], _MODEL_SECTIONS, ("model",))):
            for name, kind in sections.items():
                at: Location = (*path, name)
                if parent.get(name) is not None and not any(hole.path[: len(at)] == at for hole in self._every):
                    parent[name] = validate_data(kind, parent[name], self.document, at)
        return fixed

    def _check_options(self) -> list[Scope]:
        """Refuse an option that is wrong by itself (a misspelt name, say), whatever else is filled in.

        Values that merely do not go together are left to the draws: another filling may do. The fillings tried are
        returned.
        """
        fillings = []
        first: Point = {}
        _open_all(self._every, first)
        for chain in _chains(self._every):
            hole = chain[-1][0]
            tries = range(len(hole.options)) if hole.kind == "choice" else (hole.low, hole.high)
            for value in tries:
                point = {**first, **{outer.name: index for outer, index in chain[:-1]}, hole.name: value}
                fillings.append(self._check_filled(space.fill(self.document.data, self._every, point), point))
        if not self._every:
            fillings.append(self._check_filled(self.document.data, {}))
        return fillings

    def _check_filled(self, filled: Any, point: Point) -> Scope:
        specs: dict[str, Spec] = {}
        for name, kind in (("data", DataSpec), ("train", TrainSpec), ("model", ModelSpec)):
            section = filled[name]
            try:
                if name == "model":
                    section = _with_data(section, DataSpec.model_validate(filled["data"]))
                specs[name] = kind.model_validate(section)
            except InfeasibleError as error:
                raise self.document.infeasible(self._written(error.path, point), str(error)) from None
            except ValidationError as error:
                for path, message, is_relation in problems(error, section):
                    if not is_relation:
                        raise self.document.error(self._written((name, *path), point), message) from None
        return Scope(filled, specs)

    def _written(self, path: Location, point: Point) -> Location:
        """Return where a path of the filled document stands in the document with holes."""
        holes = self._every
        while True:
            hole = next((h for h in holes if h.kind == "choice" and path[: len(h.path)] == h.path), None)
            if hole is None:
                return path
            index = int(point[hole.name])
            path = (*hole.path, "choice", hole.keys[index], *path[len(hole.path) :])
            holes = hole.inner[index]


def _with_data(model: Any, data: DataSpec) -> Any:
    """Give a model the image size and number of classes of its data; InfeasibleError where it has others."""
    if not isinstance(model, dict):
        return model
    for name, wanted in (("image_size", data.image_size), ("classes", data.class_count)):
        if name in model and _canonical_size(model[name]) != wanted:
            raise InfeasibleError(
                f"{short(model[name])} differs from that of the data (={wanted}); leave it out", ("model", name)
            )
    return {**model, "image_size": data.image_size, "classes": data.class_count}


def _canonical_size(value: Any) -> Any:
    try:
        return parse_pair(value)
    except PydanticCustomError:
        return value


def _open_all(holes: tuple[Hole, ...], point: Point) -> None:
    """Put into the point the first option or the low end of every hole, open or not."""
    for hole in holes:
        point[hole.name] = 0 if hole.kind == "choice" else hole.low
        for inner in hole.inner:
            _open_all(inner, point)


def _chains(
    holes: tuple[Hole, ...], outer: tuple[tuple[Hole, int], ...] = ()
) -> Iterator[tuple[tuple[Hole, int], ...]]:
    """Yield, for every hole, the options of the outer choices that open it, ending with (the hole, 0)."""
    for hole in holes:
        yield (*outer, (hole, 0))
        for index, inner in enumerate(hole.inner):
            yield from _chains(inner, (*outer, (hole, index)))
