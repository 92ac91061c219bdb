"""Images that are read as they are asked for: the same whoever reads them, varied as their seeds say."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from images import picture
from PIL import Image
from timm.data import create_transform

from stemlab.builders import build_model
from stemlab.data.stream import LOADERS, StreamPart, loaders
from stemlab.engine.embedded import EmbeddedRunner
from stemlab.engine.slots import Slot
from stemlab.spec import AugmentSpec, ModelSpec, Order, TrainSpec, TrialSpec
from stemlab.train.run import Run

ALL = AugmentSpec(crop=(0.3, 1.0), flip=0.5, auto="rand-m9-mstd0.5-inc1", erasing=0.5)


class Pictures:
    """Images in memory."""

    def __init__(self, count: int = 24) -> None:
        self.images = [picture(place % 3, place, (30, 40)) for place in range(count)]
        self.labels = np.arange(count) % 3

    def image(self, place: int) -> Image.Image:
        return self.images[place]


def part(augment: AugmentSpec | None = ALL, size: tuple[int, int] = (16, 16)) -> StreamPart:
    return StreamPart(Pictures(), np.arange(24)[::-1].copy(), size, augment=augment)


def batches(count: int = 3) -> list[torch.Tensor]:
    return list(torch.randperm(24, generator=torch.Generator().manual_seed(0))[: 6 * count].split(6))


def images_of(found) -> torch.Tensor:
    return torch.cat([images for images, _ in found])


def test_without_seeds_images_are_as_timm_prepares_them_for_judging():
    # No outside standard has it but timm's own evaluation: the same numbers, normalised by the same means.
    wanted = create_transform((16, 16), interpolation="bicubic", crop_pct=0.875)
    streamed, chosen = part(), batches()
    found = list(streamed.batches(chosen))
    source = Pictures()
    for (images, labels), places in zip(found, chosen, strict=True):
        expected = torch.stack([wanted(source.image(23 - place)) for place in places.tolist()])
        torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)
        assert labels.tolist() == [(23 - place) % 3 for place in places.tolist()]


@pytest.mark.parametrize(
    "augment",
    [
        ALL,
        AugmentSpec(crop=(0.3, 1.0)),
        AugmentSpec(flip=0.5),
        AugmentSpec(color_jitter=0.4),
        AugmentSpec(auto="rand-m9-mstd0.5-inc1"),
        AugmentSpec(auto="original"),
        AugmentSpec(auto="augmix-m5-w4-d2"),
        AugmentSpec(erasing=0.5),
    ],
    ids=lambda augment: "+".join(augment.canonical()),
)
def test_what_is_drawn_follows_from_the_seeds_alone(augment):
    streamed, chosen = part(augment), batches()
    first = images_of(streamed.batches(chosen, [1, 2, 3]))
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    again = images_of(streamed.batches(chosen, [1, 2, 3]))
    assert torch.equal(first, again)
    assert states[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(states[2], torch.get_rng_state())
    assert torch.equal(first[6:], images_of(part(augment).batches(chosen[1:], [2, 3])))  # as in a run resumed
    other = images_of(streamed.batches(chosen, [4, 5, 6]))
    judged = images_of(streamed.batches(chosen))
    assert not torch.equal(first, other)
    assert not torch.equal(first, judged)


def test_an_image_twice_in_a_batch_is_varied_twice():
    images, _ = next(part().batches([torch.tensor([5, 5])], [1]))
    assert not torch.equal(images[0], images[1])


def test_it_does_not_matter_how_many_processes_read(monkeypatch):
    chosen, seeds = batches(), [1, 2, 3]
    alone = images_of(part().batches(chosen, seeds))
    monkeypatch.setenv(LOADERS, "2")
    together = part()
    assert torch.equal(images_of(together.batches(chosen, seeds)), alone)
    assert torch.equal(
        images_of(together.batches(chosen[::-1], seeds[::-1])), images_of(part().batches(chosen[::-1], seeds[::-1]))
    )
    half_read = together.batches(chosen, seeds)
    next(half_read)
    half_read.close()
    assert torch.equal(images_of(together.batches(chosen, seeds)), alone)


def test_nobody_reads_ahead_on_the_cpu_unless_told(monkeypatch):
    monkeypatch.delenv(LOADERS, raising=False)
    assert loaders(torch.device("cpu")) == 0
    assert loaders(torch.device("cuda")) == torch.get_num_threads()
    monkeypatch.setenv(LOADERS, "3")
    assert loaders(torch.device("cpu")) == 3


@pytest.mark.parametrize("size", [(16, 24), (24, 16), (40, 12)])
@pytest.mark.parametrize("augment", [None, ALL, AugmentSpec(flip=0.5), AugmentSpec(crop=(0.08, 1.0))])
def test_images_need_not_be_square(size, augment):
    streamed = part(augment, size)
    for seeds in (None, [1]):
        images, _ = next(streamed.batches([torch.arange(4)], seeds))
        assert images.shape == (4, 3, *size)
        assert images.isfinite().all()


def test_without_a_recipe_training_sees_what_is_judged():
    streamed = part(None)
    assert torch.equal(images_of(streamed.batches(batches(), [1, 2, 3])), images_of(streamed.batches(batches())))


def test_a_crop_is_absent_unless_it_is_asked_for():
    streamed = part(AugmentSpec(flip=1.0))
    mirrored = images_of(streamed.batches(batches(), [1, 2, 3]))
    torch.testing.assert_close(mirrored, images_of(streamed.batches(batches())).flip(-1))


def test_a_policy_that_posterises_to_nothing_is_timms_all_the_same():
    """Pillow refuses to since its version 13."""
    streamed = part(AugmentSpec(auto="rand-m10-inc1-p1"))
    for seed in range(40):
        images, _ = next(streamed.batches([torch.arange(24)], [seed]))
        assert images.isfinite().all()


def test_a_run_that_is_taken_up_in_the_middle_of_an_epoch_ends_with_the_same_weights():
    spec = TrainSpec(epochs=1, warmup_epochs=0.0, batch_size=4, augment=ALL)
    model = {"stem": {"patch": 8}, "body": {"dim": 16, "depth": 1, "heads": 2}, "image_size": 16, "classes": 3}

    def begun() -> Run:
        return Run(build_model(ModelSpec.model_validate(model), seed=0), spec, 0, part())

    unbroken, states = begun(), []
    unbroken.epoch(lambda: states.append(copy.deepcopy(unbroken.state())))
    assert len(states) == 6
    for state in states[:-1]:
        taken_up = begun()
        taken_up.restore(*state)
        taken_up.epoch()
        for one, other in zip(unbroken.model.parameters(), taken_up.model.parameters(), strict=True):
            assert torch.equal(one, other)


def test_a_worker_can_fork_while_it_listens(monkeypatch):
    """A forked process closes its stdin, which takes a lock that whoever reads from it holds."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    model = {"stem": {"patch": 8}, "body": {"dim": 16, "depth": 1, "heads": 2}, "image_size": 32, "classes": 10}
    trial = TrialSpec.model_validate({"model": model, "data": {"name": "digits"}, "train": {}, "seed": 0})
    runner = EmbeddedRunner([Slot((), 1)], work="forking_work:fork")
    try:
        record = runner.run(Order(trial=trial), lambda row: None)
    finally:
        runner.close()
    assert record.status == "ok", record.error
