"""ClaimSpec: what a paper says, as a rule that is stated before the run and judged by its interval after it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from ..errors import nearest, one_of, short
from .base import Flag, Number, Spec, spec_error
from .bound import Bound

SUMMARIES = ("mean", "best", "spread", "within")

_NAME = {"type": ["string", "number", "boolean", "null"]}


class Within(Spec):
    """The share of an arm's draws whose measure lies no further than `within` from that of its best draw."""

    within: Annotated[Number, Field(gt=0)]


def level_name(value: Any) -> str:
    """Return what a level is called that a file may give as a number, a flag or null."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (str, int)):
        return str(value)
    raise spec_error(f"a level is named by text, a number, true, false or null, got {short(value)}")


def _parse_compare(value: Any) -> dict[str, tuple[str, str]]:
    if not isinstance(value, dict) or not 1 <= len(value) <= 2:
        raise spec_error(f"expected {{factor: [from, to]}} of one factor or of two, got {short(value)}")
    pairs = {}
    for name, levels in value.items():
        if not isinstance(levels, (list, tuple)) or len(levels) != 2:
            raise spec_error(f"expected the two levels compared, [from, to], got {short(levels)}", at=(name,))
        first, second = map(level_name, levels)
        if first == second:
            raise spec_error(f"a level is compared with itself ({short(first)})", at=(name, 1))
        pairs[str(name)] = (first, second)
    return pairs


def _parse_where(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise spec_error(f"expected {{factor: level}}, got {short(value)}")
    return {str(name): level_name(level) for name, level in value.items()}


def _parse_over(value: Any) -> str | Within:
    if isinstance(value, Within):
        return value
    if isinstance(value, dict) and value.keys() == {"within"}:
        distance = value["within"]
        if isinstance(distance, bool) or not isinstance(distance, (int, float)) or not 0 < distance < float("inf"):
            raise spec_error(f"expected a distance above 0, got {short(distance)}", at=("within",))
        return Within(within=float(distance))
    if isinstance(value, str) and value in SUMMARIES[:3]:
        return value
    if value == "within":
        raise spec_error("within needs its distance: {within: 0.05}")
    name = next(iter(value), "") if isinstance(value, dict) else value
    raise spec_error(f"unknown summary {short(value)}; expected {one_of(SUMMARIES)}{nearest(name, SUMMARIES)}")


Compare = Annotated[
    dict[str, tuple[str, str]],
    PlainValidator(_parse_compare),
    WithJsonSchema(
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 2,
            "additionalProperties": {"type": "array", "items": _NAME, "minItems": 2, "maxItems": 2},
        }
    ),
]
Where = Annotated[
    dict[str, str],
    PlainValidator(_parse_where),
    WithJsonSchema({"type": "object", "additionalProperties": _NAME}),
]
Over = Annotated[
    Literal["mean", "best", "spread"] | Within,
    PlainValidator(_parse_over),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(SUMMARIES[:3])},
                {
                    "type": "object",
                    "properties": {"within": {"type": "number", "exclusiveMinimum": 0}},
                    "required": ["within"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class ClaimSpec(Spec):
    """One claim: what is compared, by which measure, and where the difference is to lie.

    `says` is the claim in its author's own words, `source` where it stands. `measure` is a column of the study's
    frame: a metric, `error`, `diverged`, a cost, a probe. `compare` names two levels of one factor (second minus
    first) or of two (difference of differences); `where` fixes other factors, and those not named are averaged over.
    `over` says how the draws of an arm are summed up: their `mean`; the `best`, which the validation part chooses
    and `measure` judges; their `spread` (standard deviation); `{within: x}`, the share of draws no further than x
    from the arm's best. `relative` gives the difference as a share of the first arm's value. The claim holds if the
    difference lies in `expect`.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    source: str | None = None
    says: Annotated[str, Field(min_length=1)]
    measure: Annotated[str, Field(min_length=1)]
    compare: Compare
    where: Where = {}
    over: Over = "mean"
    relative: Flag = False
    expect: Bound

    @model_validator(mode="after")
    def _where_is_of_others(self) -> ClaimSpec:
        for name in self.where:
            if name in self.compare:
                raise spec_error(f"{name} is compared, so it cannot be fixed", at=("where", name))
        return self
