"""The zoo: every published stem, its counts to the last parameter."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from layer_lists import convert

FACTS = {
    fact["id"].lower(): fact
    for fact in yaml.safe_load((Path(__file__).parent / "facts" / "stems.yaml").read_text(encoding="utf-8"))
}


def expected_output(fact) -> tuple[int, int, int]:
    """Channels, height and width, whatever the layout of the original."""
    shape, layout = fact["out_shape"], fact["output_layout"]
    if layout == "NLC":
        side = math.isqrt(shape[0])
        assert side * side == shape[0]
        return (shape[1], side, side)
    return tuple(shape) if layout == "NCHW" else (shape[2], shape[0], shape[1])


def assert_counts(trace, fact):
    assert tuple(trace.end) == expected_output(fact)
    assert trace.counts.params == fact["params"]
    assert trace.counts.flops == fact["macs"]
    assert trace.counts.bias_adds == fact["bias_adds"]
    assert trace.counts.activations == fact["conv_acts"]
    assert trace.stride == (fact["total_stride"],) * 2
    assert trace.receptive_field == (fact["receptive_field"],) * 2


@pytest.mark.zoo
@pytest.mark.parametrize("name", FACTS)
def test_a_layer_list_becomes_a_stem_with_the_counts_of_the_original(name):
    fact = FACTS[name]
    channels, height, width = fact["measured_at"]
    stem = convert(fact["layers"])
    assert_counts(stem.trace(height, width, expected_output(fact)[0], channels), fact)


def test_there_are_108_of_them():
    assert len(FACTS) == 108
