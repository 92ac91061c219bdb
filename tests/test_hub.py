"""timm knows our models, by name and by folder; the folders are those of timm and the hub."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings

import pytest
import timm
import torch
from hypothesis import given, settings
from strategies import models
from timm.data import resolve_data_config
from timm.models import save_for_hf
from torch import nn

import stemlab
from stemlab import ModelSpec, SpecError, timm_models, zoo
from stemlab.builders import Stem, build_model
from stemlab.builders.hub import save
from stemlab.spec.base import pair

CONV = {"channels": [8, 16, 24], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"}
SMALL = {"stem": CONV, "body": {"dim": 24, "depth": 2, "heads": 3}, "image_size": 32, "classes": 10}
MATCHED = {**SMALL, "match": {"reference": {"patch": 8}, "tolerance": 0.05}}


def folder_of(tmp_path, document=SMALL, **options):
    """Save a model whose batch norms have seen something; return it and its folder."""
    spec = ModelSpec.model_validate(document)
    model = build_model(spec, seed=1, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
    save(model, spec, tmp_path)
    return model.eval(), f"local-dir:{tmp_path}"


def images(size=32, channels=3):
    return torch.randn(2, channels, *pair(size), generator=torch.Generator().manual_seed(0))


# Known by name.

ORDERS = {
    "stemlab-first": "import stemlab, timm",
    "timm-first": "import timm, stemlab",
    "builders-first": "import stemlab.builders, timm",
    "probed-and-reloaded": "import stemlab, importlib.util; importlib.util.find_spec('timm'); "
    "importlib.reload(stemlab.timm_models).install(); import timm; importlib.reload(stemlab)",
}


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_timm_knows_our_models_whatever_is_imported_first(imports, tmp_path):
    model, folder = folder_of(tmp_path)
    expected = tmp_path / "expected.pt"
    torch.save(model(images()), expected)
    program = f"""if True:
        import sys, warnings
        warnings.simplefilter("error")
        {imports}
        import torch
        assert set(timm.list_models("stemlab*")) == {{"stemlab", *("stemlab_" + n for n in stemlab.zoo.models())}}
        assert timm.is_model("stemlab_vit_c_4gf")
        assert not [f for f in sys.meta_path if type(f).__module__.startswith("stemlab")]
        assert "exec_module" not in vars(timm.__loader__), vars(timm.__loader__)
        model = timm.create_model({folder!r}, pretrained=True).eval()
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        assert torch.equal(model(x), torch.load({str(expected)!r}))
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_a_broken_zoo_does_not_break_the_import_of_timm(monkeypatch):
    monkeypatch.setattr(zoo, "names", lambda: 1 / 0)
    with pytest.warns(UserWarning, match="timm does not know stemlab's models: ZeroDivisionError"):
        timm_models.install()


def test_registering_again_changes_nothing():
    before = timm.models.model_entrypoint("stemlab_vit_c_1gf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(timm_models).install()
    assert timm.models.model_entrypoint("stemlab_vit_c_1gf") is before


@pytest.mark.parametrize("name", [name for name in zoo.models() if zoo.get(name).model])
def test_every_model_of_the_zoo_is_one_of_timms(name):
    entry = zoo.get(name)
    with torch.device("meta"):
        model = timm.create_model(f"stemlab_{name}")
    assert sum(p.numel() for p in model.parameters()) == stemlab.cost(name).params
    assert model.num_classes == entry.model.classes
    data = resolve_data_config(model=model)
    assert data["input_size"] == (3, *pair(entry.model.image_size))
    assert model.pretrained_cfg["architecture"] == f"stemlab_{name}"


def test_the_usual_options_of_timm():
    def make(**options):
        return timm.create_model("stemlab", spec=SMALL, **options).eval()

    assert make()(images()).shape == (2, 10)
    assert make(num_classes=3)(images()).shape == (2, 3)
    assert make(num_classes=0)(images()).shape == (2, 24)
    assert make(num_classes=0, global_pool="")(images()).shape == (2, 17, 24)
    assert make(img_size=(48, 64))(images((48, 64))).shape == (2, 10)
    assert make(in_chans=1)(images(channels=1)).shape == (2, 10)
    assert make(dynamic_img_size=True)(images(64)).shape == (2, 10)
    assert make(drop_path_rate=0.5).blocks[1].drop_path1.drop_prob == 0.5
    assert isinstance(make(global_pool="avg").norm, nn.Identity)
    assert make(global_pool="max").global_pool == "max"
    features = make(features_only=True, out_indices=(0, 1))
    assert features.feature_info.reduction() == [8, 8]
    assert [tuple(f.shape) for f in features(images())] == [(2, 24, 4, 4)] * 2


def test_the_body_is_settled_at_the_specs_own_size_and_classes():
    body = stemlab.match(MATCHED).model.body
    assert body != ModelSpec.model_validate(MATCHED).body
    model = timm.create_model("stemlab", spec=MATCHED, img_size=64, num_classes=3)
    assert len(model.blocks) == body.depth
    assert model.blocks[0].mlp.fc1.out_features == body.mlp_hidden


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("stemlab_vit_c_1gf", {"pretrained": True}, RuntimeError, "No pretrained weights exist for stemlab_vit_c_1gf"),
        ("stemlab", {}, SpecError, r"stemlab: no spec; expected a model"),
        ("stemlab", {"spec": {**SMALL, "clases": 3}}, SpecError, r"did you mean 'classes'"),
        ("stemlab", {"spec": SMALL, "img_size": 33}, SpecError, r"does not divide the image's height \(=33\)"),
        ("stemlab", {"spec": ModelSpec.model_validate(SMALL), "depht": 3}, TypeError, "depht"),
    ],
)
def test_what_cannot_be_made_is_said(name, options, error, message):
    with pytest.raises(error, match=message):
        timm.create_model(name, **options)


# Known by folder.


@given(models())
@settings(max_examples=10)
def test_any_model_comes_back_from_its_folder(tmp_path_factory, spec):
    path = tmp_path_factory.mktemp("model")
    model, folder = folder_of(path, spec.canonical())
    x = images(spec.image_size)
    with torch.no_grad():
        assert torch.equal(timm.create_model(folder, pretrained=True).eval()(x), model(x))
        assert torch.equal(stemlab.build(path).eval()(x), model(x))
    assert stemlab.load(path) == spec


def test_the_config_says_what_timm_and_stemlab_ask_for(tmp_path):
    folder_of(tmp_path, MATCHED)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["num_features"]) == ("stemlab", 10, 24)
    assert config["global_pool"] == "token"
    ours, settled = ModelSpec.model_validate(config["spec"]), ModelSpec.model_validate(config["model_args"]["spec"])
    assert ours == stemlab.load(MATCHED)
    assert settled == stemlab.match(MATCHED).model
    assert settled.body.canonical() == config["body"]
    assert config["cost"]["params"] == stemlab.cost(MATCHED).params
    expected = {
        "input_size": [3, 32, 32],
        "num_classes": 10,
        "first_conv": "patch_embed.layers.conv1",
        "classifier": "head",
        "interpolation": "bicubic",
    }
    assert {name: config["pretrained_cfg"][name] for name in expected} == expected


def test_weights_go_to_other_classes_sizes_and_channels(tmp_path):
    model, folder = folder_of(tmp_path)
    state = model.state_dict()

    def made(**options):
        return timm.create_model(folder, pretrained=True, **options).eval()

    other = made(num_classes=3)
    assert other(images()).shape == (2, 3)
    assert all(torch.equal(v, state[k]) for k, v in other.state_dict().items() if not k.startswith("head."))
    larger = made(img_size=(48, 64))
    model.set_input_size((48, 64))
    assert torch.equal(larger(images((48, 64))), model(images((48, 64))))
    grey = made(in_chans=1).patch_embed.layers.conv1.weight
    torch.testing.assert_close(grey, state["patch_embed.layers.conv1.weight"].sum(1, keepdim=True))
    features = made(features_only=True, out_indices=[1])(images())
    assert features[0].shape == (2, 24, 4, 4)


@pytest.mark.parametrize("options", [{}, {"dynamic_img_size": True}, {"in_chans": 2}, {"reg_tokens": 2}], ids=str)
def test_timms_own_writer_for_the_hub_takes_our_models(tmp_path, options):
    """What push_to_hf_hub uploads is what save_for_hf writes."""
    model = stemlab.build(MATCHED, seed=0, **options).eval()
    save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert isinstance(again.patch_embed, Stem)
    x = images(channels=options.get("in_chans", 3))
    assert torch.equal(again(x), model(x))
    assert again.dynamic_img_size == model.dynamic_img_size


def test_timms_own_writer_takes_models_that_were_changed(tmp_path):
    model = timm.create_model("stemlab", spec=SMALL).eval()
    model.set_input_size((48, 64))
    model.reset_classifier(3, "avg")
    save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(again(images((48, 64))), model(images((48, 64))))
