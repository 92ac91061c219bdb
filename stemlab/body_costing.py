"""Closed-form cost of a body: everything of a model but its stem, by the conventions of stemlab.costing.

Norms, activations, layer scales, rotations and additions of position embeddings have parameters but count no flops.
The biases of queries, keys and values that are counted are those that are trained.
"""

from __future__ import annotations

from functools import lru_cache

from .spec import BodySpec, Counts


@lru_cache(maxsize=4096)
def body_counts(body: BodySpec, patches: int, classes: int) -> Counts:
    """Return the counts of everything but the stem, for a grid of `patches` tokens."""
    fixed, block = body_parts(body, body.mlp_hidden, patches, classes)
    return fixed.plus(Counts(*(body.depth * value for value in block)))


@lru_cache(maxsize=4096)
def body_parts(body: BodySpec, hidden: int, patches: int, classes: int) -> tuple[Counts, Counts]:
    """Return the counts of what does not depend on depth (embeddings, last norm, pooling, head) and of one block.

    `hidden` is the width of the MLPs; the body's own is ignored. Both parts are linear in it.
    """
    tokens = patches + body.prefix_tokens
    embedded = {"all": tokens, "patches": patches, "none": 0}[body.pos_embed]
    norms = int(body.pre_norm) + int(body.final_norm)
    heads = 2 if body.distilled else 1
    fixed = _sum(
        Counts(params=(embedded + body.prefix_tokens) * body.dim + norms * _norm(body, body.dim)),
        *[_linear(1, body.dim, classes, classes)] * heads,
    )
    if body.pool == "map":
        fixed = fixed.plus(_attention_pool(body, hidden, tokens if body.pool_include_prefix else patches))
    return fixed, _sum(_attention(body, tokens), _mlp(body, hidden, tokens), _around(body))


def _attention(body: BodySpec, tokens: int) -> Counts:
    dim, head = body.dim, body.dim // body.heads
    biased = (3 if body.k_bias else 2) * dim if body.qkv_bias else 0
    norms = 2 * body.qk_norm * _norm(body, head) + body.scale_attn_norm * _norm(body, dim)
    angles = dim if body.rope is not None and body.rope.kind == "mixed" else 0  # head / 2 for each head, x and y
    return _sum(
        _linear(tokens, dim, 3 * dim, biased),
        _products(body.heads, tokens, tokens, dim),
        _linear(tokens, dim, dim, dim if body.proj_bias else 0),
        Counts(params=norms + angles),
    )


def _mlp(body: BodySpec, hidden: int, tokens: int) -> Counts:
    inner = hidden if body.mlp == "mlp" else 2 * hidden  # a gate for every value
    return _sum(
        _linear(tokens, body.dim, inner, inner if body.proj_bias else 0),
        _linear(tokens, hidden, body.dim, body.dim if body.proj_bias else 0),
        Counts(params=body.scale_mlp_norm * _norm(body, hidden)),
    )


def _around(body: BodySpec) -> Counts:
    scales = 0 if body.layer_scale is None or body.post_norm else 2 * body.dim
    return Counts(params=2 * _norm(body, body.dim) + scales)


def _attention_pool(body: BodySpec, hidden: int, tokens: int) -> Counts:
    """Count one learned query over the tokens, and an MLP behind it."""
    dim = body.dim
    hidden = hidden if body.pool_hidden is None else body.pool_hidden
    return _sum(
        Counts(params=dim + _norm(body, dim)),
        _linear(1, dim, dim, dim),
        _linear(tokens, dim, 2 * dim, 2 * dim),
        _products(body.pool_heads or body.heads, 1, tokens, dim),
        _linear(1, dim, dim, dim),
        _linear(1, dim, hidden, hidden),
        _linear(1, hidden, dim, dim),
    )


def _linear(tokens: int, inputs: int, outputs: int, biased: int) -> Counts:
    """Count a linear layer on each token; `biased` of its outputs have a bias."""
    weights = inputs * outputs
    return Counts(tokens * weights, tokens * biased, weights + biased, tokens * outputs)


def _products(heads: int, queries: int, keys: int, dim: int) -> Counts:
    """Count q k^T and attention v."""
    return Counts(flops=2 * queries * keys * dim, activations=heads * queries * keys + queries * dim)


def _norm(body: BodySpec, width: int) -> int:
    return 2 * width if body.norm == "layer" else width


def _sum(*parts: Counts) -> Counts:
    return Counts(*map(sum, zip(*parts, strict=True)))
