"""Presets, held to the numbers of their sources."""

from __future__ import annotations

import pytest
from test_checkpoint import a_trial, run

from stemlab.spec import TrainSpec, TrialSpec
from stemlab.spec.presets import PRESETS


def test_deit_is_deits():
    """arXiv 2012.12877, table 9; the rest are the defaults of main.py of facebookresearch/deit."""
    found = TrainSpec.model_validate({"preset": "deit"})
    assert (found.epochs, found.batch_size, found.optimizer, found.weight_decay) == (300, 1024, "adamw", 0.05)
    assert found.lr == pytest.approx(0.0005 * 1024 / 512)
    assert (found.schedule, found.warmup_epochs, found.min_lr) == ("cosine", 5, 1e-5)
    assert (found.label_smoothing, found.drop_path, found.ema, found.clip_grad) == (0.1, 0.1, 0.99996, None)
    augment = found.augment
    assert (augment.auto, augment.erasing, augment.repeats) == ("rand-m9-mstd0.5-inc1", 0.25, 3)
    assert (augment.mixup, augment.cutmix, augment.cutmix_share) == (0.8, 1.0, 0.5)


def test_vit_c_imagenet_is_the_papers():
    """arXiv 2106.14881, sections 5.4 and 6; what it does not say is from its authors' code, facebookresearch/pycls."""
    found = TrainSpec.model_validate({"preset": "vit_c_imagenet"})
    assert (found.epochs, found.batch_size, found.schedule, found.warmup_epochs) == (400, 2048, "cosine", 5)
    assert (found.optimizer, found.lr, found.weight_decay, found.min_lr) == ("adamw", 1e-3, 0.24, 0)
    assert (found.augment.auto, found.augment.mixup, found.augment.cutmix) == ("original", 0.8, 1.0)
    assert found.label_smoothing == 0.1
    assert found.ema == pytest.approx(1 - 1e-5 * 2048 / 400, abs=1e-9)
    none = ("erasing", "repeats", "color_jitter")
    assert [getattr(found.augment, name) for name in none] == [None] * 3
    assert (found.drop_path, found.clip_grad) == (None, None)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains(name):
    spec = a_trial().canonical()
    spec["train"] = {"preset": name, "epochs": 1, "warmup_epochs": 0, "batch_size": 512}
    record, _ = run(TrialSpec.model_validate(spec))
    assert record.status == "ok"
