"""Layers that are not of the core: registered in a process, or named by the entry points of an installed package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError
from test_bad_input import Result, lines_named, refused

from stemlab import SpecError, StemSpec
from stemlab.spec import LayerSpec, register_layer
from stemlab.spec.layers import registry


@pytest.fixture
def known(monkeypatch):
    """Forget afterwards what a test registers."""
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))


def layer_class(op: str = "twice", name: str = "Twice", **more):
    """Make a layer class as a notebook's cell does."""

    def build(self, before, after, dim):
        from torch import nn

        return nn.Identity()

    fields = {"__annotations__": {"op": Literal[op]}, "op": op, "build": build, "__module__": "notebook", **more}
    return type(name, (LayerSpec,), {**fields, "__qualname__": name})


# Registered in this process.


def test_a_registered_layer_is_a_layer(known):
    kind = register_layer(layer_class())
    branches = {"op": "parallel", "branches": [[], [{"op": "twice"}]]}
    spec = StemSpec.model_validate({"layers": [{"op": "twice"}, branches]})
    assert isinstance(spec.layers[0], kind)
    assert StemSpec.model_validate(spec.canonical()) == spec
    assert spec.trace(5, 7, 24).end == (3, 5, 7)
    with pytest.raises(ValidationError, match=r"did you mean 'twice'"):
        StemSpec.model_validate({"layers": [{"op": "twise"}]})


def test_a_class_defined_again_takes_the_place_of_the_first(known):
    register_layer(layer_class())
    again = register_layer(layer_class())
    assert isinstance(StemSpec.model_validate({"layers": [{"op": "twice"}]}).layers[0], again)


def test_an_op_has_one_class(known):
    register_layer(layer_class())
    with pytest.raises(SpecError, match=r"op 'twice' is taken by notebook\.Twice; choose another name"):
        register_layer(layer_class(name="Other"))
    with pytest.raises(SpecError, match=r"op 'conv' is taken by stemlab\.spec\.layers\.conv\.ConvLayer"):
        register_layer(layer_class("conv"))


def without_op():
    return type("NoOp", (LayerSpec,), {"build": layer_class().build, "__module__": "notebook"})


def without_build():
    return type("NoBuild", (LayerSpec,), {"__annotations__": {"op": Literal["x"]}, "op": "x", "__module__": "notebook"})


def with_two_names():
    return layer_class(__annotations__={"op": Literal["one", "two"]}, op="one")


def without_default():
    return layer_class(op="x", __annotations__={"op": Literal["y"]})


@pytest.mark.parametrize("make", [without_op, without_build, with_two_names, without_default, lambda: int, lambda: "x"])
def test_what_is_no_layer_is_not_registered(known, make):
    before = dict(registry._CLASSES)
    with pytest.raises(SpecError, match=r"is not a layer: expected a subclass of LayerSpec .* and a method build"):
        register_layer(make())
    assert before == registry._CLASSES


# Installed: a package as pip leaves it, in a process of its own.

PLUGIN = '''
from typing import Literal

from stemlab.spec import Counts, LayerSpec, Shape
from stemlab.spec.layers import channels_on


class Flip(LayerSpec):
    """Mirror the map and scale its channels."""

    op: Literal["flip"] = "flip"
    times: int = 1

    def cost(self, before, after, dim):
        return Counts(params=after.channels)

    def build(self, before, after, dim):
        import torch
        from torch import nn

        class Module(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(after.channels, 1, 1))

            def forward(self, x):
                return x.flip(-1) * self.scale

        return Module()


class NoBuild(LayerSpec):
    op: Literal["nobuild"] = "nobuild"


class NoOp(LayerSpec):
    def build(self, before, after, dim):
        raise NotImplementedError


class Conv(LayerSpec):
    op: Literal["conv"] = "conv"

    def build(self, before, after, dim):
        raise NotImplementedError
'''
POINTS = """
[stemlab.layers]
flip = flips:Flip
nobuild = flips:NoBuild
noop = flips:NoOp
taken = flips:Conv
renamed = flips:Flip
absent = flips:Absent
broken = broken_flips:Flip
missing = no_such_package:Flip
"""
MODEL = """\
stem:
  layers:
  - {op: conv, channels: 8, kernel: 3, stride: 4, norm: batch}
  - LAYER
  - op: parallel
    branches:
    - []
    - - LAYER
  - {op: conv, channels: dim, kernel: 1}
body: {dim: 24, depth: 1, heads: 3}
image_size: 16
classes: 10
"""


@pytest.fixture
def stemlab_with_plugins(tmp_path):
    """Run the command line beside an installed package of layers, good and bad."""
    site, info = tmp_path / "site", tmp_path / "site" / "flips-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "flips.py").write_text(PLUGIN)
    (site / "broken_flips.py").write_text("raise RuntimeError('not on this machine')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flips\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)

    def run(*arguments) -> Result:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("stemlab")), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def with_layer(layer: str, *command) -> Result:
        (tmp_path / "model.yaml").write_text(MODEL.replace("LAYER", layer))
        return run(*command)

    return with_layer


def test_an_installed_layer_is_costed_and_built(stemlab_with_plugins, tmp_path):
    cost = stemlab_with_plugins("{op: flip}", "cost", "model.yaml", "--json")
    assert cost.code == 0, cost.err
    plain = stemlab_with_plugins("{op: norm, kind: batch}", "cost", "model.yaml", "--json")

    def params(result):
        (found,) = json.loads(result.out) if result.out.startswith("[") else (json.loads(result.out),)
        return found["cost"]["stem_params"] if "cost" in found else found["stem_params"]

    assert params(plain) - params(cost) == 2 * 8  # a shift a channel, in each of two norms
    made = stemlab_with_plugins("{op: flip}", "build", "model.yaml", "--out", "built")
    assert made.code == 0, made.err
    assert (tmp_path / "built" / "model.safetensors").exists()


def test_an_installed_layer_is_in_the_schema_and_a_broken_one_does_no_harm(stemlab_with_plugins):
    result = stemlab_with_plugins("{op: flip}", "schema", "model")
    assert result.code == 0, result.err
    ops = set(re.findall(r'"op": {\s*"const": "(\w+)"', result.out))
    assert {"flip", "conv", "parallel"} <= ops
    assert "nobuild" not in ops


@pytest.mark.parametrize(
    ("layer", "at", "says"),
    [
        ("{op: flop}", "", ("unknown value 'flop'", "did you mean 'flip'?")),
        ("{op: flip, time: 2}", ".time", ("unknown field 'time'", "did you mean 'times'?")),
        ("{op: flip, times: many}", ".times", ("'many'",)),
        ("{op: nobuild}", ".op", ("plug-in flips:NoBuild cannot be loaded", "a method build()")),
        ("{op: noop}", ".op", ("plug-in flips:NoOp cannot be loaded", "a field op")),
        ("{op: taken}", ".op", ("plug-in flips:Conv cannot be loaded", "op 'conv' is taken by")),
        ("{op: renamed}", ".op", ("plug-in flips:Flip is a layer of another name",)),
        ("{op: absent}", ".op", ("plug-in flips:Absent cannot be loaded", "Absent")),
        ("{op: broken}", ".op", ("plug-in broken_flips:Flip cannot be loaded", "not on this machine")),
        ("{op: missing}", ".op", ("plug-in no_such_package:Flip cannot be loaded", "no_such_package")),
    ],
)
def test_a_plug_in_that_does_not_work_is_named(stemlab_with_plugins, layer, at, says):
    result = stemlab_with_plugins(layer, "cost", "model.yaml")
    refused(result, *says)
    assert result.err.startswith(f"error: model.yaml:4: stem.layers[1]{at}: "), result.err
    assert lines_named(result, "model.yaml") == [4, 8]
