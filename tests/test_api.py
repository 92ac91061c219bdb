"""The public functions, as a notebook would call them."""

from __future__ import annotations

import pytest
import torch

import stemlab

SMALL = {"stem": {"patch": 8}, "body": {"dim": 32, "depth": 1, "heads": 2}, "image_size": 32, "classes": 5}


def test_a_model_from_a_dict():
    model = stemlab.build(SMALL, seed=0, dynamic_img_size=True)
    assert model(torch.zeros(1, 3, 40, 64)).shape == (1, 5)
    assert stemlab.cost(SMALL).params == sum(p.numel() for p in model.parameters())


def test_stems_alone():
    assert stemlab.build_stem("vit_c_1gf")(torch.zeros(1, 3, 224, 224)).shape == (1, 196, 192)
    stem = stemlab.build_stem({"channels": [8, 16], "norm": "batch"}, dim=24, image_size=32)
    assert stem(torch.zeros(2, 3, 32, 32)).shape == (2, 64, 24)
    with pytest.raises(stemlab.SpecError, match="dim=384"):
        stemlab.build_stem({"channels": [8, 16]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body": {"dim": float("nan"), "depth": 1, "heads": 1}}, "<dict>: body.dim: must be a whole number, got nan"),
        ({"stem": {"channels": [8], "norm": "bach"}}, "<dict>: stem.norm: unknown norm 'bach'.*did you mean 'batch'"),
        ({"classes": object()}, "<dict>: classes: must be a whole number, got <object"),
    ],
)
def test_a_bad_dict_is_a_spec_error(change, message):
    with pytest.raises(stemlab.SpecError, match=message):
        stemlab.load({**SMALL, **change})


def test_an_impossible_match_says_how_far_off_the_nearest_is():
    spec = {
        "stem": {"channels": [48, 96, 192, 384], "norm": "batch", "act": "relu"},
        "body": {"dim": 384, "depth": 12, "heads": 6, "mlp_ratio": 3},
        "match": {"reference": {"patch": 16}, "adjust": ["depth"]},
    }
    with pytest.raises(stemlab.InfeasibleError, match=r"the nearest \(depth 11, MLP width 1152\) is \+1.47% off"):
        stemlab.match(spec)
    loose = stemlab.match({**spec, "match": {**spec["match"], "tolerance": 0.02}})
    assert (loose.model.body.depth, loose.model.match) == (11, None)
