"""Closed-form cost of a model, from its spec alone.

Conventions (arXiv 2106.14881 and its code, pycls): flops are multiply-adds of convolutions, linear layers and both
attention products; an addition of a bias counts apart, so pycls's totals are flops + bias_adds; activations are the
outputs of convolutions, linear layers, attention maps and attention products. Half of torch's FlopCounterMode,
and fvcore without its norm terms, give the same flops.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .spec import BodySpec, Counts, ModelSpec


@dataclass(frozen=True)
class Cost:
    """What one model costs for one image, split into the stem and the rest (class token and head included)."""

    stem: Counts
    body: Counts

    @property
    def total(self) -> Counts:
        """Stem and body together."""
        return self.stem.plus(self.body)

    @property
    def flops(self) -> int:
        """Multiply-adds."""
        return self.stem.flops + self.body.flops

    @property
    def bias_adds(self) -> int:
        """Additions of biases."""
        return self.stem.bias_adds + self.body.bias_adds

    @property
    def params(self) -> int:
        """Trained parameters."""
        return self.stem.params + self.body.params

    @property
    def activations(self) -> int:
        """Elements of activations."""
        return self.stem.activations + self.body.activations

    @property
    def stem_flops_share(self) -> float:
        """The stem's part of the flops, between 0 and 1."""
        return self.stem.flops / self.flops

    def quantity(self, name: str) -> float:
        """Return one entry of `as_dict`."""
        part, _, rest = name.partition("_")
        if part in ("stem", "body") and rest in Counts._fields:
            return float(getattr(getattr(self, part), rest))
        return float(getattr(self, name))

    def as_dict(self) -> dict[str, Any]:
        """Return the flat form of records and of `stemlab cost --json`."""
        flat: dict[str, Any] = self.total._asdict()
        for part, counts in (("stem", self.stem), ("body", self.body)):
            flat |= {f"{part}_{name}": value for name, value in counts._asdict().items() if name != "bias_adds"}
        return {**flat, "stem_flops_share": self.stem_flops_share}


def count(model: ModelSpec) -> Cost:
    """Return the cost of a model as its body is written, whatever its `match` would make of it.

    `stemlab.cost` and `stemlab.match` count the matched body.
    """
    trace = model.trace()
    return Cost(stem=trace.counts, body=body_counts(model.body, trace.tokens, model.classes))


@lru_cache(maxsize=4096)
def body_counts(body: BodySpec, patches: int, classes: int) -> Counts:
    """Return the counts of everything but the stem, for a grid of `patches` tokens."""
    fixed, block = body_parts(body, body.mlp_hidden, patches, classes)
    return fixed.plus(Counts(*(body.depth * value for value in block)))


@lru_cache(maxsize=4096)
def body_parts(body: BodySpec, hidden: int, patches: int, classes: int) -> tuple[Counts, Counts]:
    """Return the counts of what does not depend on depth (embeddings, last norm, head) and of one block.

    `hidden` is the width of the MLPs; the body's own is ignored.
    """
    dim = body.dim
    tokens = patches + (1 if body.class_token else 0)
    embeddings = tokens * dim + (dim if body.class_token else 0)
    norm = 2 * dim
    fixed = Counts(
        flops=dim * classes,
        bias_adds=classes,
        params=embeddings + norm + dim * classes + classes,
        activations=classes,
    )
    linear = 3 * dim * dim + dim * dim + 2 * dim * hidden  # qkv, projection, MLP
    products = 2 * tokens * tokens * dim  # q k^T and attention v
    biases = (3 * dim if body.qkv_bias else 0) + dim + hidden + dim
    outputs = tokens * (3 * dim + dim + dim + hidden + dim) + body.heads * tokens * tokens
    block = Counts(
        flops=tokens * linear + products,
        bias_adds=tokens * biases,
        params=linear + biases + 2 * norm,
        activations=outputs,
    )
    return fixed, block
