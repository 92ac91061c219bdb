"""stemlab train: one model, which goes on where it was killed and ends with the weights of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback

import pytest
import timm
import torch
from safetensors.torch import load_file

import stemlab
from stemlab.errors import SpecError, StudyError
from stemlab.records import STATE, TrainingFolder
from stemlab.single import load_trial, train_model

MODEL = {
    "stem": {"channels": [4, 8], "kernels": 3, "strides": [2, 2], "norm": "batch", "act": "relu"},
    "body": {"dim": 8, "depth": 2, "heads": 2, "mlp_ratio": 2},
    "image_size": 8,
}
RECIPE = {"epochs": 8, "batch_size": 64, "lr": 3e-3}
STEPS = RECIPE["epochs"] * (1077 // 64)
TIMED = {"seconds", "images_per_second"}


class Watcher:
    """Counts updates, and does something behind one of them."""

    def __init__(self, at=None, what=None):
        self.at, self.what, self.seen, self.rows = at, what, 0, []
        self.folder = None

    def preparing(self, what, done, total):
        pass

    def begin(self, folder, trial, device):
        self.folder = folder

    def steps(self, done, total):
        self.seen += 1
        assert total == STEPS
        if self.seen == self.at:
            self.what()

    def epoch(self, row):
        self.rows.append(row)

    def note(self, text):
        pass


def train(out, **options):
    return train_model(MODEL, "digits", RECIPE, out=out, device="cpu", **options)


def killed(out, step, wait):
    """Train in a forked process that is killed so many seconds behind a step; return how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            train(out, seed=5, every=0, resume=True, watcher=Watcher(step, lambda: os.write(writing, b".")))
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def numbers(record):
    return record.status, record.curve, {k: v for k, v in record.metrics.items() if k not in TIMED}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    record = train(folder / "model", seed=5)
    return record, load_file(folder / "model" / "model.safetensors")


def test_twenty_kills_change_no_weight(unbroken, tmp_path):
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    rng = random.Random(seed)
    folder = tmp_path / "model"
    for _ in range(20):
        # At any time: in the middle of a step, or while the state is being written.
        assert os.WIFSIGNALED(killed(folder, rng.randint(1, 4), rng.uniform(0.0, 0.02)))
    watcher = Watcher()
    record = train(folder, seed=5, every=0, resume=True, watcher=watcher)
    assert watcher.seen < STEPS  # it went on
    assert numbers(record) == numbers(unbroken[0])
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == unbroken[1].keys()
    assert all(torch.equal(weights[name], value) for name, value in unbroken[1].items())
    assert list(folder.rglob(STATE)) == []


@pytest.mark.slow
def test_the_command_goes_on_behind_kill_9(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    recipe = [f"--set=train.{name}={value}" for name, value in {**RECIPE, "epochs": 5}.items()]
    command = [
        os.path.join(os.path.dirname(sys.executable), "stemlab"),
        "train",
        "model.json",
        "--data",
        "digits",
        *recipe,
    ]

    def start(out, *more):
        return subprocess.Popen(
            [*command, "--out", out, "--every", "0.02", *more],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "2"},
        )

    killed = start("killed")
    while not list((tmp_path / "killed").rglob(STATE)):
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    refused = start("killed")
    assert refused.wait() == 2
    assert "--resume" in refused.communicate()[1]
    for out, more in (("killed", ["--resume"]), ("whole", [])):
        process = start(out, *more)
        printed, complained = process.communicate()
        assert process.returncode == 0, complained
        assert "model.safetensors" in printed
    one, other = (load_file(tmp_path / out / "model.safetensors") for out in ("killed", "whole"))
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_a_trained_model_is_one_of_timms(unbroken, tmp_path):
    folder = tmp_path / "model"
    record = train(folder, seed=5)
    by_timm = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    by_stemlab = stemlab.build(folder).eval()
    assert all(torch.equal(value, unbroken[1][name]) for name, value in by_timm.state_dict().items())
    data = stemlab.data.load.load(load_trial(MODEL, "digits", RECIPE).data)
    with torch.inference_mode():
        images, labels = next(data.test.batches([torch.arange(len(data.test))]))
        right = [(model(images).argmax(1) == labels).double().mean().item() for model in (by_timm, by_stemlab)]
    assert right == pytest.approx([record.metrics["test_top1"]] * 2)
    config = by_timm.pretrained_cfg
    assert config["input_size"] == (3, 8, 8)
    assert 0.2 < config["mean"][0] < 0.4  # of the scans, not of ImageNet
    assert (folder / "curve.csv").read_text().count("\n") == 1 + RECIPE["epochs"]


def test_a_finished_training_is_not_trained_again(unbroken, tmp_path):
    folder = tmp_path / "model"
    first = train(folder, seed=5)
    watcher = Watcher()
    again = train(folder, seed=5, resume=True, watcher=watcher)
    assert watcher.seen == 0
    assert watcher.folder == folder
    assert again == TrainingFolder(folder).records()[-1]
    assert numbers(again) == numbers(first)
    with pytest.raises(StudyError, match="--resume"):
        train(folder, seed=5)
    with pytest.raises(StudyError, match="holds another training"):
        train(folder, seed=6, resume=True)


def test_the_model_has_the_classes_of_the_data_and_the_data_the_size_of_the_model():
    trial = load_trial({**MODEL, "classes": 77}, "digits")
    assert (trial.model.classes, trial.model.image_size, trial.data.image_size) == (10, 8, 8)
    trial = load_trial(MODEL, {"name": "digits", "image_size": 12}, changes=["data.split_seed=3", "train.epochs=2"])
    assert (trial.model.image_size, trial.data.split_seed, trial.train.epochs) == (12, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"data": "digit"}, "unknown data set 'digit'.*did you mean 'digits'"),
        ({"data": "nothing.yaml"}, "nothing.yaml: no such file"),
        ({"recipe": "diet"}, "unknown preset 'diet'.*did you mean 'deit'"),
        ({"recipe": {"epochs": 0}}, "train.epochs: .*got 0"),
        ({"changes": ["train.lr=fast"]}, "--set train.lr=fast: train.lr: must be a number, got 'fast'"),
        ({"changes": ["model.body.dim=7"]}, "model.body"),
    ],
)
def test_what_cannot_be_trained_is_refused_where_it_stands(arguments, says):
    with pytest.raises(SpecError, match=says):
        load_trial(**{"model": MODEL, "data": "digits", **arguments})


def test_nothing_is_left_of_a_refused_training(tmp_path):
    with pytest.raises(SpecError, match="device"):
        train_model(MODEL, "digits", RECIPE, out=tmp_path / "model", device="tpu9")
    assert not (tmp_path / "model").exists()
