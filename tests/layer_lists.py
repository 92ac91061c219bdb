"""The published stems of tests/facts/stems.yaml, and from a layer list there to a stem in our words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from stemlab import StemSpec

FACTS = {
    fact["id"].lower(): fact
    for fact in yaml.safe_load((Path(__file__).parent / "facts" / "stems.yaml").read_text(encoding="utf-8"))
}

NORMS = {"bn": "batch", "ln": "layer", "gn": "group", "in": "instance", "rms": "rms"}


def convert(layers: list[dict[str, Any]]) -> StemSpec:
    """Return the stem of a layer list."""
    return StemSpec.model_validate({"layers": _layers(layers)})


def _layers(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [made for layer in layers if (made := CONVERTERS[layer["op"]](layer)) is not None]


def _padding(value: Any) -> Any:
    return {"same_tf": "tf_same"}.get(value, value) if isinstance(value, str) else value


def _conv(layer: dict[str, Any]) -> dict[str, Any]:
    made = {
        "op": "conv",
        "channels": layer["out"],
        "kernel": layer["k"],
        "stride": layer["s"],
        "padding": _padding(layer["p"]),
        "dilation": layer.get("d", 1),
        "groups": layer.get("g", 1),
        "bias": layer["bias"],
    }
    return {**made, "standardize": layer["ws"]} if "ws" in layer else made


def _norm(layer: dict[str, Any]) -> dict[str, Any]:
    made = {"op": "norm", "kind": NORMS[layer["kind"]], "eps": layer["eps"]}
    return {**made, "groups": layer["groups"]} if "groups" in layer else made


def _pool(kind: str):
    def convert(layer: dict[str, Any]) -> dict[str, Any]:
        made = {"op": "pool", "kind": kind, "kernel": layer["k"], "stride": layer["s"], "padding": _padding(layer["p"])}
        return {**made, **{key: layer[key] for key in ("count_include_pad",) if key in layer}}

    return convert


CONVERTERS = {
    "conv": _conv,
    "norm": _norm,
    "act": dict,
    "maxpool": _pool("max"),
    "avgpool": _pool("avg"),
    "parallel": lambda layer: {
        "op": "parallel",
        "merge": layer["merge"],
        "branches": [_layers(branch) for branch in layer["branches"]],
    },
    "layout": lambda layer: None,  # how the tokens lie in memory is the transformer's business
}


def expected_output(fact) -> tuple[int, int, int]:
    """Channels, height and width, whatever the layout of the original."""
    shape, layout = fact["out_shape"], fact["output_layout"]
    if layout == "NLC":
        side = math.isqrt(shape[0])
        assert side * side == shape[0]
        return (shape[1], side, side)
    return tuple(shape) if layout == "NCHW" else (shape[2], shape[0], shape[1])
