"""Sets that timm's create_dataset reads: their parts, their images, and what cannot be had of them."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from images import picture, save

from stemlab.data import contents, timm_sets
from stemlab.data.load import forget, load
from stemlab.errors import SpecError
from stemlab.running import load_search
from stemlab.spec import DataSpec, ModelSpec, TrainSpec, TrialSpec
from stemlab.train import run_trial


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(timm_sets.ROOT, str(tmp_path))
    timm_sets.read.cache_clear()
    forget()
    return tmp_path


def fashion(root: Path, train: int = 200, test: int = 30) -> None:
    """Write a small set as torchvision keeps FashionMNIST."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    drawn = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = (drawn.integers(0, 60, (count, 28, 28)) + 15 * labels[:, None, None]).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
            (raw / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())


def test_a_set_of_torchvision_keeps_its_test_part_and_trains(root):
    fashion(root)
    spec = contents.found(DataSpec(name="torch/fashion_mnist", image_size=32))
    assert spec.part_sizes == (160, 40, 30)
    parts = load(spec)
    images, labels = next(parts.test.batches([torch.arange(30)]))
    assert images.shape == (30, 3, 32, 32)
    assert labels.tolist() == [place % 10 for place in range(30)]
    trained = torch.cat([labels for _, labels in parts.train.batches([torch.arange(160)])])
    assert torch.bincount(trained).tolist() == [16] * 10
    model = {"stem": {"patch": 8}, "body": {"dim": 32, "depth": 1, "heads": 2}, "image_size": 32, "classes": 10}
    record = run_trial(
        TrialSpec(
            model=ModelSpec.model_validate(model), data=spec, train=TrainSpec(epochs=1, warmup_epochs=0.0), seed=0
        )
    )
    assert record.status == "ok", record.error


def test_a_study_knows_what_the_set_holds(root):
    fashion(root)
    model = {"stem": {"patch": 8}, "body": {"dim": {"choice": [32, 64]}, "depth": 1, "heads": 2}}
    document = {"name": "x", "model": model, "data": {"name": "torch/fashion_mnist"}}
    study = load_search({**document, "train": {"epochs": 2}}).study
    assert study.data["contents"] == {
        "classes": 10,
        "train": 200,
        "test": 30,
        "listing": study.data["contents"]["listing"],
    }


def test_parts_of_folders_read_by_torchvision_are_told_apart(root):
    for part, each in (("train", 8), ("val", 3)):
        for label in range(2):
            for number in range(each):
                save(picture(label, number), root / part / f"class{label}" / str(number))
    spec = contents.found(DataSpec(name="torch/image_folder"))
    assert spec.part_sizes == (12, 4, 6)


@pytest.mark.parametrize("name", ["torch/cifar10", "torch/imagenet", "torch/nonsense"])
def test_what_is_not_there_is_not_downloaded_but_refused(root, name):
    with pytest.raises(SpecError, match=rf"data.name: {name}: timm finds no train part of it in {root} .*STEMLAB_DATA"):
        load_search({"name": "x", "model": {}, "data": {"name": name}})
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", ["wds/imagenet", "tfds/cifar10"])
def test_a_set_that_can_only_be_streamed_is_refused(name):
    with pytest.raises(SpecError, match=f"{name}: timm reads such sets as a stream"):
        contents.look_up(name)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SpecError, match=r"hfds/ours: timm needs a package that is not installed: .*datasets"):
        contents.look_up("hfds/ours")
