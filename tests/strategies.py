"""Hypothesis strategies for what a user may write: stems, bodies, models, and documents with holes.

All of them draw plain documents, as read from a file; `model_documents` only those that validate.
"""

from __future__ import annotations

import json

from hypothesis import assume
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies_layers import acts, booleans, layer_lists, norms, optional, paddings, pairs

from stemlab.spec import ModelSpec, StemSpec

MOST_PIXELS = 64


@st.composite
def columnar_stems(draw):
    """The short form; every column one value, or one for each layer."""
    depth = draw(st.integers(1, 3))

    def column(values, each=None):
        return values | st.lists(values if each is None else each, min_size=depth, max_size=depth)

    return {
        "channels": draw(st.lists(st.sampled_from([4, 6, 12, 24]), min_size=depth, max_size=depth)),
        **draw(
            optional(
                # A list is one value for each layer, so a pair for all of them has to be written out.
                kernels=column(st.integers(1, 5), pairs(1, 5)),
                strides=column(st.integers(1, 2), st.sampled_from([1, 2, [1, 2], [2, 2]])),
                paddings=column(st.integers(0, 2) | st.sampled_from(["same", "tf_same"]), paddings),
                norm=column(norms(2) | st.just("none")),
                act=column(acts() | st.just("none")),
                order=st.sampled_from(["conv-norm-act", "conv-act-norm"]),
                bias=booleans,
            )
        ),
    }


def stem_documents(dim: int):
    return st.one_of(
        layer_lists(dim),
        layer_lists(dim),
        columnar_stems(),
        st.fixed_dictionaries({"patch": pairs(2, 8)}, optional={"bias": booleans}),
    )


@st.composite
def body_documents(draw):
    dim = draw(st.sampled_from([12, 24, 48]))
    token = draw(booleans)
    return {
        "dim": dim,
        "depth": draw(st.integers(1, 3)),
        "heads": draw(st.sampled_from([1, 2, 3, 4])),
        "class_token": token,
        **draw(
            optional(
                mlp_ratio=st.sampled_from([1, 2, 2.5, 4.0]) | st.floats(0.5, 5),
                qkv_bias=booleans,
                pool=st.sampled_from(["token", "avg"] if token else ["avg"]),
            )
        ),
    }


@st.composite
def match_documents(draw, height: int, width: int):
    patches = [p for p in (1, 2, 4, 8, 16) if height % p == width % p == 0 and height * width <= 4096 * p * p]
    reference = draw(
        st.sampled_from(patches).map(lambda p: {"patch": p})
        | st.just({"channels": [6], "kernels": 3, "strides": 1, "norm": "batch", "act": "relu"})
    )
    return {
        "reference": reference,
        **draw(
            optional(
                metric=st.sampled_from(["flops", "params", "activations"]),
                adjust=st.sampled_from([["depth"], ["mlp"], ["depth", "mlp"], ["mlp", "depth"]]),
                tolerance=st.sampled_from([1e-4, 0.005, 0.05, 0.5]),
            )
        ),
    }


@st.composite
def model_documents(draw, match: bool | None = False, least_grid: int = 1):
    """A valid model of at most 64 x 64 pixels; `match` None: with or without."""
    body = draw(body_documents())
    stem = draw(stem_documents(body["dim"]))
    strides = StemSpec.model_validate(stem).stride
    # Small images first: what is odd happens where a map is hardly larger than a kernel.
    sizes = [draw(st.integers(least_grid, 4)) for _ in strides]
    document = None
    for more in range(6):
        image = [min(n + more, max(1, MOST_PIXELS // s)) * s for n, s in zip(sizes, strides, strict=True)]
        candidate = {"stem": stem, "body": body, "image_size": image, "classes": draw(st.integers(1, 12))}
        try:
            ModelSpec.model_validate(candidate)
        except ValidationError:
            continue
        document = candidate
        break
    assume(document is not None)
    if match or (match is None and draw(booleans)):
        document["match"] = draw(match_documents(*document["image_size"]))
    return document


def models(match: bool | None = False, least_grid: int = 1):
    return model_documents(match, least_grid).map(ModelSpec.model_validate)


# Documents with holes: any JSON, then whole studies.

_scalars = st.integers(-9, 9) | st.sampled_from(["a", "b", "c"]) | st.none()
_keys = st.sampled_from(["x", "y", "z"])


def _hole(kind: str, low, high):
    return {kind: [min(low, high), max(low, high)]}


def choices(options):
    found = st.lists(options, min_size=1, max_size=3, unique_by=json.dumps)
    named = found.map(lambda options: dict(zip(("small", "large", "other"), options, strict=False)))
    return (found | named).map(lambda options: {"choice": options})


int_holes = st.builds(_hole, st.just("int"), st.integers(-3, 3), st.integers(-3, 3))
uniform_holes = st.builds(
    _hole, st.just("uniform"), *[st.floats(-1e300, 1e300, allow_nan=False) | st.integers(-5, 5)] * 2
)
log_uniform_holes = st.builds(_hole, st.just("log_uniform"), *[st.floats(1e-300, 1e300) | st.integers(1, 9)] * 2)


def _documents(leaves):
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(_keys, inner, max_size=3), choices(inner), choices(inner)
        ),
        max_leaves=10,
    )


discrete_documents = _documents(_scalars | int_holes)
"""JSON with choice and int holes, nested in one another."""

documents = _documents(_scalars | int_holes | uniform_holes | log_uniform_holes)
"""JSON with all kinds of holes."""


def _sometimes(hole, plain):
    """A hole, or a plain value in its place."""
    return st.just(hole) | st.just(plain)


@st.composite
def study_documents(draw, continuous: bool = True):
    """A small study. Each option is right by itself; many fillings do not go together, on purpose."""
    group = {"kind": "group", "groups": {"choice": [1, 3, 4]}}
    scaled = {"kind": "scaled_relu", "learn": {"choice": [True, False]}}
    norm = {"choice": ["batch", "none", draw(_sometimes(group, "layer"))]}
    columns = {
        "channels": draw(_sometimes({"choice": [[8, 12], [12, 24], [6, 6, 12]]}, [8, 24])),
        "kernels": draw(_sometimes({"int": [1, 3]}, 3)),
        "strides": draw(_sometimes({"choice": [2, [2, 2], [2, 1, 2]]}, 2)),
        "norm": draw(_sometimes(norm, "batch")),
        "act": draw(_sometimes({"choice": ["relu", scaled]}, "relu")),
    }
    layers = {
        "layers": [
            {"op": "conv", "channels": 12, "kernel": 3, "stride": {"choice": [1, 2, 3]}, "groups": {"choice": [1, 2]}},
            {"choice": [{"op": "norm", **group}, {"op": "pool", "kind": "max", "kernel": {"int": [1, 2]}}]},
            {"op": "patchify", "patch": {"choice": [2, 4, 5]}},
        ]
    }
    stem = draw(st.sampled_from([columns, layers, {"choice": [{"patch": {"choice": [4, 7, 8]}}, columns, layers]}]))
    match = {"reference": {"patch": {"choice": [4, 8]}}, "metric": {"choice": ["flops", "params"]}, "tolerance": 0.02}
    lr = {"log_uniform": [1e-5, 1e-1]} if continuous else {"choice": [1e-3, 1e-2]}
    return {
        "name": "drawn",
        "model": {
            "stem": stem,
            "body": {"dim": 24, "depth": draw(_sometimes({"int": [1, 3]}, 2)), "heads": {"choice": [3, 4, 5]}},
            **draw(optional(match=_sometimes(match, {"reference": {"patch": 8}}))),
        },
        "data": {"name": "digits", "image_size": draw(_sometimes({"choice": [16, 20, 24]}, 16))},
        "train": {
            "epochs": draw(_sometimes({"int": [1, 2]}, 2)),
            "warmup_epochs": draw(_sometimes({"choice": [0, 1]}, 0)),
            "lr": draw(_sometimes(lr, 1e-3)),
        },
        **draw(optional(constraints=st.just({"params": {"max": 2e4}, "match_error": {"max": 0.01}}))),
        "search": {"seeds": draw(st.sampled_from([[0], [0, 1]]))},
    }
