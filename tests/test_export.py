"""Exported files: read by their own runtimes, compared with the model, whole or not there at all."""

from __future__ import annotations

import json
import sys

import onnx
import onnxruntime
import pytest
import torch

import stemlab
from stemlab import SpecError, StemlabError
from stemlab.builders import export as exporting
from stemlab.builders.export import TOLERANCE, export

CONV = {"channels": [8, 16, 24], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"}
MIXED = {
    "layers": [
        {"op": "conv", "channels": 6, "kernel": [3, 2], "stride": 2, "padding": "tf_same", "norm": "layer"},
        {"op": "pool", "kind": "max", "kernel": 3, "stride": 2, "padding": 1, "ceil": False},
        {"op": "act", "kind": "scaled_relu"},
        {"op": "patchify", "patch": 2},
    ]
}


def small(stem=CONV):
    spec = {"stem": stem, "body": {"dim": 24, "depth": 1, "heads": 3}, "image_size": [32, 48], "classes": 5}
    return stemlab.build(spec, seed=0)


def read_pt2(path):
    return torch.export.load(path).module()


def read_onnx(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"image": x.numpy()})[0])


READERS = {"pt2": read_pt2, "onnx": read_onnx}


@pytest.mark.parametrize(
    ("kind", "stem"), [("pt2", CONV), ("pt2", MIXED), ("onnx", MIXED)], ids=["pt2", "pt2-mixed", "onnx"]
)
def test_the_file_computes_what_the_model_does(tmp_path, kind, stem):
    model, before = small(stem).train(), torch.get_rng_state()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    path, difference = export(model, tmp_path / "new", kind)
    assert [file.name for file in (tmp_path / "new").iterdir()] == [f"model.{kind}"] == [path.name]
    assert difference <= TOLERANCE
    assert model.training, "the mode has changed"
    assert torch.equal(torch.get_rng_state(), before), "the global generator has moved"
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    if kind == "onnx":
        graph = onnx.load(path).graph
        shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
        assert shapes == {"image": ["batch", 3, 32, 48]}
    run = READERS[kind](path)
    model.eval()
    for batch in (1, 2, 4):
        x = torch.randn(batch, 3, 32, 48)
        with torch.no_grad():
            torch.testing.assert_close(run(x), model(x), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", READERS)
def test_a_file_that_is_wrong_is_not_left_behind(tmp_path, kind):
    """Real exporters, on a model that computes something else when it is exported than when it is called."""
    model = small()
    plain = type(model).forward

    class Liar(type(model)):
        def forward(self, x):
            return plain(self, x) + (1.0 if torch.compiler.is_exporting() else 0.0)

    model.__class__ = Liar
    (tmp_path / f"model.{kind}").write_text("the one before")
    with pytest.raises(StemlabError, match=rf"model.{kind}: not written: its outputs are off by 1"):
        export(model, tmp_path, kind)
    assert [file.name for file in tmp_path.iterdir()] == [f"model.{kind}"]
    assert (tmp_path / f"model.{kind}").read_text() == "the one before"


def test_outputs_that_are_no_numbers_are_wrong(tmp_path):
    model = small()
    torch.nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(StemlabError, match="off by nan"):
        export(model, tmp_path, "pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_traced_is_said(tmp_path):
    model = small()
    model.forward = lambda x: model.forward_head(model.forward_features(x)) if x.sum() > 0 else x
    with pytest.raises(StemlabError, match=r"model\.pt2: cannot be exported: "):
        export(model, tmp_path, "pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_what_is_missing_is_named_with_its_cure(tmp_path, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)  # what `import` then raises is an ImportError
    with pytest.raises(StemlabError, match=rf"needs {missing}, which is not installed.*stemlab\[export\]") as caught:
        export(small(), tmp_path, "onnx")
    assert caught.value.exit_code == 1
    exporting.require("pt2")


def test_an_unknown_kind(tmp_path):
    with pytest.raises(SpecError, match=r"export \(='onx'\): expected one of onnx, pt2 \(did you mean 'onnx'\?\)"):
        export(small(), tmp_path, "onx")


def test_build_exports(cli, tmp_path):
    spec = {"stem": CONV, "body": {"dim": 24, "depth": 1, "heads": 3}, "image_size": 32, "classes": 5}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    arguments = ("build", "spec.json", "--out", "m", "--export", "onnx", "--export", "pt2", "--json")
    ran = cli(*arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    exported = json.loads(ran.stdout)["exported"]
    assert [file["path"] for file in exported] == ["m/model.onnx", "m/model.pt2"]
    assert all(file["difference"] <= TOLERANCE for file in exported)
    names = sorted(file.name for file in (tmp_path / "m").iterdir())
    assert names == ["config.json", "model.onnx", "model.pt2", "model.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--export", "onnx"), "--out DIR"), (("--export", "onx", "--out", "m"), "did you mean 'onnx'")],
)
def test_build_refuses_before_it_writes(cli, tmp_path, arguments, message):
    ran = cli("build", "vit_p_1gf", *arguments)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
