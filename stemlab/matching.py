"""The body that makes a model cost what the same body costs with a reference stem (arXiv 2106.14881, section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import costing
from .body_costing import body_counts, body_parts
from .costing import Cost
from .errors import InfeasibleError
from .spec import BodySpec, ModelSpec

MLP_STEP = 8
"""Hidden widths are multiples of this: what matrix units like."""

_MOST_DEPTHS = 6
_MOST_TIMES_DEEPER = 16  # beyond, the two stems are too unlike for the bodies to be called the same


@dataclass(frozen=True)
class MatchResult:
    """A model with its body settled. `error` is (cost - target) / target of the metric; None where none was asked."""

    model: ModelSpec
    cost: Cost
    metric: str | None = None
    target: int | None = None
    error: float | None = None

    def quantity(self, name: str) -> float:
        """Return one of `stemlab.spec.quantity.Quantity`."""
        return abs(self.error or 0.0) if name == "match_error" else self.cost.quantity(name)

    def as_dict(self) -> dict[str, Any]:
        """Return the flat form of records: the settled depth and MLP width, and how far off the cost remains."""
        body = self.model.body
        return {
            "depth": body.depth,
            "mlp_hidden": body.mlp_hidden,
            "metric": self.metric,
            "target": self.target,
            "error": self.error,
        }


def match(model: ModelSpec) -> MatchResult:
    """Settle the body of a model. The result's `model` has no `match` left: its body is the one to build.

    The depth that comes nearest to the budget is tried first, then, with `mlp`, the best width at it, then the next
    depths; the first within the tolerance is taken. Where none is, InfeasibleError says how far off the nearest is.
    """
    rule = model.match
    if rule is None:
        return MatchResult(model, costing.count(model))
    trace, reference = model.trace(), model.trace(rule.reference)
    stem, patches, metric = trace.counts, trace.tokens, rule.metric
    reference_body = body_counts(model.body, reference.tokens, model.classes)
    target = getattr(reference.counts, metric) + getattr(reference_body, metric)
    room = target - getattr(stem, metric)

    best: tuple[float, int, int] | None = None
    for bodies in _bodies(model, patches, room):
        for depth, hidden in bodies:
            error = (_whole(model, depth, hidden, patches) - room) / target
            if best is None or abs(error) < abs(best[0]):
                best = (error, depth, hidden)
        if best and abs(best[0]) <= rule.tolerance:
            break
    if best is None or abs(best[0]) > rule.tolerance:
        raise InfeasibleError(_too_far(model, best, getattr(stem, metric), target))
    error, depth, hidden = best
    body = _settled(model.body, depth, hidden)
    if body.pretrained is not None and body != model.body:
        raise InfeasibleError(
            f"pretrained weights ({body.pretrained}) are for depth {model.body.depth} and MLP width "
            f"{model.body.mlp_hidden}, but the match asks for depth {depth} and width {hidden}; drop one of the two"
        )
    counted = Cost(stem=stem, body=body_counts(body, patches, model.classes))
    return MatchResult(model.model_copy(update={"body": body, "match": None}), counted, metric, target, error)


def _settled(body: BodySpec, depth: int, hidden: int) -> BodySpec:
    changes: dict[str, Any] = {"depth": depth}
    if hidden != body.mlp_hidden:
        changes["mlp_ratio"] = hidden / body.dim
    return body.model_copy(update=changes)


def _parts(model: ModelSpec, hidden: int, patches: int) -> tuple[int, int]:
    """Return the matched metric of what does not depend on depth, and of one block."""
    assert model.match is not None
    fixed, block = body_parts(model.body, hidden, patches, model.classes)
    return getattr(fixed, model.match.metric), getattr(block, model.match.metric)


def _whole(model: ModelSpec, depth: int, hidden: int, patches: int) -> int:
    """Return the matched metric of a whole body."""
    fixed, block = _parts(model, hidden, patches)
    return fixed + depth * block


def _bodies(model: ModelSpec, patches: int, room: int) -> Iterator[list[tuple[int, int]]]:
    """Yield what to try at each depth, as (depth, MLP width); the depth closest to the budget first."""
    rule, body = model.match, model.body
    assert rule is not None
    fixed, block = _parts(model, body.mlp_hidden, patches)
    depths = [body.depth]
    if "depth" in rule.adjust:
        ideal = (room - fixed) / block
        deepest = _MOST_TIMES_DEEPER * body.depth
        nearest = min(max(1, round(ideal)), deepest)
        around = range(max(1, nearest - _MOST_DEPTHS), min(deepest, nearest + _MOST_DEPTHS) + 1)
        depths = sorted(around, key=lambda depth: abs(depth - ideal))
    if "mlp" not in rule.adjust:
        yield [(depths[0], body.mlp_hidden)]
        return
    for depth in depths[:_MOST_DEPTHS]:
        tries = [(depth, body.mlp_hidden)]
        # Every metric is linear in the hidden width, so the width that meets the budget is one division away.
        least = _whole(model, depth, MLP_STEP, patches)
        step = _whole(model, depth, 2 * MLP_STEP, patches) - least
        steps = 1 + round((room - least) / step)
        # A body of less than half or more than twice the width is no longer the same body.
        narrowest = -(-body.mlp_hidden // (2 * MLP_STEP))
        widest = max(narrowest, 2 * body.mlp_hidden // MLP_STEP)
        yield [*tries, (depth, MLP_STEP * min(max(steps, narrowest), widest))]


def _too_far(model: ModelSpec, best: tuple[float, int, int] | None, stem: int, target: int) -> str:
    rule = model.match
    assert rule is not None
    adjust = " and ".join(rule.adjust)
    text = f"no body with another {adjust} matches the reference's {target:,} {rule.metric} within {rule.tolerance:.2%}"
    if best is not None:
        error, depth, hidden = best
        text += f"; the nearest (depth {depth}, MLP width {hidden}) is {error:+.2%} off"
    if stem > target / 2:
        return f"{text}: the stem alone has {stem:,}"
    return f"{text}; raise match.tolerance" + ("" if "mlp" in rule.adjust else " or add mlp to match.adjust")
