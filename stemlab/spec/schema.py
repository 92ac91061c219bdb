"""JSON Schema of the spec files, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any, Literal

from .data import DataSpec
from .model import ModelSpec
from .study import AblationSpec, SearchSpec
from .training import TrainSpec

_HOLE = {
    "description": "A hole: one of several values, or a range to draw from.",
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
    "properties": {
        "choice": {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}]},
        **{
            kind: {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
            for kind in ("int", "uniform", "log_uniform")
        },
    },
}


def json_schema(kind: Literal["model", "search", "ablation"]) -> dict[str, Any]:
    """Return the schema of a model file, or of a study file, in which any value trained on may be a hole.

    A study file may hold a search and an ablation at once, so the schema of each allows the sections of the other.
    """
    if kind == "model":
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ModelSpec.model_json_schema()}
    own, other = (SearchSpec, AblationSpec) if kind == "search" else (AblationSpec, SearchSpec)
    schema, theirs = own.model_json_schema(), other.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    definitions |= {name: value for name, value in theirs.get("$defs", {}).items() if name not in definitions}
    schema["properties"] = {**theirs["properties"], **schema["properties"]}
    for name, spec in (("model", ModelSpec), ("data", DataSpec), ("train", TrainSpec)):
        section = spec.model_json_schema()
        inner = section.pop("$defs", {})
        definitions |= {key: _with_holes(value) for key, value in inner.items()}
        schema["properties"][name] = _with_holes(section)
    definitions["Hole"] = _HOLE
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _with_holes(schema: Any) -> Any:
    """Allow a hole wherever the schema describes a value of an object or an item of a list."""
    if isinstance(schema, list):
        return [_with_holes(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _with_holes(value) for key, value in schema.items()}
    if "properties" in schema:
        result["properties"] = {
            # `op` and `kind` say what a layer is; a hole takes the place of the whole layer instead.
            key: value if key in ("op", "kind") else _or_hole(value)
            for key, value in result["properties"].items()
        }
    if isinstance(schema.get("items"), dict):
        result["items"] = _or_hole(result["items"])
    return result


def _or_hole(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"$ref": "#/$defs/Hole"}]}
