"""Closed-form cost of a model, from its spec alone.

Conventions (arXiv 2106.14881 and its code, pycls): flops are multiply-adds of convolutions, linear layers and both
attention products; an addition of a bias counts apart, so pycls's totals are flops + bias_adds; activations are the
outputs of convolutions, linear layers, attention maps and attention products. Half of torch's FlopCounterMode,
and fvcore without its norm terms, give the same flops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .body_costing import body_counts
from .spec import Counts, ModelSpec


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
