"""From a point of a space to a trial: filled, validated, matched and within the constraints, or infeasible and why."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from . import space
from .errors import InfeasibleError
from .matching import MatchResult, match
from .space import Hole, Point
from .spec import BodySpec, DataSpec, MatchSpec, ModelSpec, SearchSpec, StemSpec, TrainSpec, TrialSpec
from .spec.base import Spec
from .spec.files import Document, Location, problems, validate_data

_SECTIONS: dict[str, type[Spec]] = {"data": DataSpec, "train": TrainSpec}
_MODEL_SECTIONS: dict[str, type[Spec]] = {"stem": StemSpec, "body": BodySpec, "match": MatchSpec}
_PROBES = 2000


@dataclass(frozen=True)
class Candidate:
    """A feasible point: its trials, one for each seed, its matched cost, and what the holes were filled with."""

    assignment: dict[str, Any]
    trials: tuple[TrialSpec, ...]
    matched: MatchResult

    @property
    def identity(self) -> str:
        """What makes two candidates the same proposal: the first trial's digest."""
        return self.trials[0].digest


class Candidates:
    """The points of a study's space, as candidates."""

    def __init__(self, study: SearchSpec, document: Document) -> None:
        """Read the holes of the study's document; SpecError with file:line for what no filling can mend."""
        self.study = study
        self.document = Document(
            {"model": study.model, "data": study.data, "train": study.train}, document.source, document.places
        )
        self.holes = space.find(self.document)
        self._check_options()
        self._fixed = self._share_what_is_fixed()

    @property
    def size(self) -> float:
        """The number of points, feasible or not; infinite with a continuous hole."""
        return space.count(self.holes)

    def make(self, point: Point) -> Candidate:
        """Return the candidate of a point; InfeasibleError says why there is none."""
        filled = space.fill(self._fixed, self.holes, point)
        try:
            data = DataSpec.model_validate(filled["data"])
            train = TrainSpec.model_validate(filled["train"])
            model = ModelSpec.model_validate(_with_data(filled["model"], data))
        except ValidationError as error:
            _, message = next(problems(error, filled))
            raise InfeasibleError(message) from None
        matched = match(model)
        self._check_constraints(matched)
        trials = tuple(
            TrialSpec.model_construct(model=model, data=data, train=train, seed=seed)
            for seed in self.study.search.seeds
        )
        return Candidate(space.assignment(self.holes, point), trials, matched)

    def points(self, rng: random.Random) -> Iterator[Point]:
        """Yield points to try: all of a small space in a shuffled order, otherwise endless draws."""
        if self.size <= _PROBES:
            points = list(space.enumerate_points(self.holes))
            rng.shuffle(points)
            yield from points
        else:
            while True:
                yield space.draw(self.holes, rng)

    def probe(self, seed: int = 0) -> tuple[list[Candidate], int, str]:
        """Try up to 2,000 points. Return the feasible ones, how many were tried, and the commonest objection."""
        feasible, tried, objections = [], 0, Counter[str]()
        for tried, point in enumerate(self.points(random.Random(seed)), start=1):
            try:
                feasible.append(self.make(point))
            except InfeasibleError as error:
                objections[str(error)] += 1
            if tried == _PROBES:
                break
        return feasible, tried, objections.most_common(1)[0][0] if objections else ""

    def require_feasible(self) -> None:
        """InfeasibleError, with the commonest objection, where no point can be found that satisfies everything."""
        objections = Counter[str]()
        for tried, point in enumerate(self.points(random.Random(0)), start=1):
            try:
                self.make(point)
            except InfeasibleError as error:
                objections[str(error)] += 1
            else:
                return
            if tried == _PROBES:
                break
        (reason, times), total = objections.most_common(1)[0], objections.total()
        raise self.document.error(
            ("model",),
            f"none of {total} points of the space is feasible; the commonest objection ({times} times): {reason}",
        )

    def _check_constraints(self, matched: MatchResult) -> None:
        if not self.study.constraints:
            return
        values = {**matched.cost.as_dict(), "match_error": abs(matched.error or 0.0)}
        for name, bound in self.study.constraints.items():
            value = values[name]
            if bound.max is not None and value > bound.max:
                raise InfeasibleError(f"constraint {name}: {value:g} is above max {bound.max:g}")
            if bound.min is not None and value < bound.min:
                raise InfeasibleError(f"constraint {name}: {value:g} is below min {bound.min:g}")

    def _share_what_is_fixed(self) -> Any:
        """Validate the parts without holes once, with file:line for their errors, and put the specs in their place."""
        fixed = dict(self.document.data)
        fixed["model"] = dict(fixed["model"])
        for parent, sections, path in ((fixed, _SECTIONS, ()), (fixed["model"], _MODEL_SECTIONS, ("model",))):
            for name, kind in sections.items():
                at: Location = (*path, name)
                if parent.get(name) is not None and not any(hole.path[: len(at)] == at for hole in self.holes):
                    parent[name] = validate_data(kind, parent[name], self.document, at)
        return fixed

    def _check_options(self) -> None:
        """Refuse an option that is wrong by itself (a misspelt name, say), whatever else is filled in.

        Values that merely do not go together are left to the draws: another filling may do.
        """
        first: Point = {}
        _open_all(self.holes, first)
        for chain in _chains(self.holes):
            hole = chain[-1][0]
            tries = range(len(hole.options)) if hole.kind == "choice" else (hole.low, hole.high)
            for value in tries:
                point = {**first, **{outer.name: index for outer, index in chain[:-1]}, hole.name: value}
                self._check_filled(space.fill(self.document.data, self.holes, point), point)
        if not self.holes:
            self._check_filled(self.document.data, {})

    def _check_filled(self, filled: Any, point: Point) -> None:
        for name, kind in (("data", DataSpec), ("train", TrainSpec), ("model", ModelSpec)):
            section = filled[name]
            try:
                if name == "model":
                    section = _with_data(section, DataSpec.model_validate(filled["data"]))
                kind.model_validate(section)
            except InfeasibleError as error:
                raise self.document.error((name,), str(error)) from None
            except ValidationError as error:
                for (path, message), item in zip(problems(error, section), error.errors(), strict=False):
                    if item["type"] != "relation":
                        raise self.document.error(self._written((name, *path), point), message) from None

    def _written(self, path: Location, point: Point) -> Location:
        """Return where a path of the filled document stands in the document with holes."""
        holes = self.holes
        while True:
            hole = next((h for h in holes if h.kind == "choice" and path[: len(h.path)] == h.path), None)
            if hole is None:
                return path
            index = int(point[hole.name])
            path = (*hole.path, "choice", index, *path[len(hole.path) :])
            holes = hole.inner[index]


def _with_data(model: Any, data: DataSpec) -> Any:
    """Give a model the image size and number of classes of its data; InfeasibleError where it has others."""
    if not isinstance(model, dict):
        return model
    for name in ("image_size", "classes"):
        wanted = getattr(data, name)
        if model.get(name, wanted) != wanted:
            raise InfeasibleError(
                f"model.{name} (={model[name]}) differs from that of the data (={wanted}); leave it out"
            )
    return {"image_size": data.image_size, "classes": data.classes, **model}


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
