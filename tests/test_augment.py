"""Images in memory, varied on their device: by the seed alone, as timm does it, and nothing else in the process."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import functional

from stemlab.data import augment
from stemlab.data.augment import varied
from stemlab.data.drawn import seeded
from stemlab.data.load import load
from stemlab.data.split import MemoryPart
from stemlab.spec import AugmentSpec, DataSpec

KINDS = [
    {"crop": [0.3, 0.9]},
    {"flip": 0.5},
    {"color_jitter": 0.4},
    {"auto": "rand-m9-mstd0.5-inc1"},
    {"auto": "original-mstd0.5"},
    {"auto": "v0r"},
    {"auto": "3a", "color_jitter": 0.3},
    {"auto": "augmix-m5-w2-b1"},
    {"erasing": 0.9},
    {"crop": [0.3, 1.0], "flip": 0.5, "auto": "rand-m9-mstd0.5-inc1", "erasing": 0.25},
]
MEAN, DEVIATION = 0.4, 0.3


def pictures(count=6, height=12, width=20, seed=0):
    noise = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return (noise - MEAN) / DEVIATION


def vary(images, seed=1, **fields):
    return varied(images, AugmentSpec(**fields), seed, MEAN, DEVIATION)


def generators():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_the_same_seed_draws_the_same_and_changes_nothing_else(fields):
    images = pictures()
    before, kept = generators(), images.clone()
    found = vary(images, **fields)
    torch.rand(3)
    random.random()
    assert torch.equal(vary(images, **fields), found)
    assert torch.equal(images, kept)
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert found.isfinite().all()
    assert not torch.equal(vary(images, seed=2, **fields), found)
    torch.set_rng_state(torch.tensor(before[2], dtype=torch.uint8))
    random.setstate(before[0])
    vary(images, **fields)
    assert generators() == before


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_each_image_is_varied_in_its_own_way(fields):
    found = vary(pictures(1).repeat(12, 1, 1, 1), **fields)
    assert len({tuple(image.flatten().tolist()) for image in found}) > 1


@pytest.mark.parametrize("fields", [field for field in KINDS if "erasing" not in field], ids=str)
def test_colours_stay_colours(fields):
    found = vary(pictures(), **fields) * DEVIATION + MEAN
    assert found.min() > -1e-5
    assert found.max() < 1 + 1e-5


def test_what_is_not_asked_for_is_not_done():
    images = pictures()
    for fields in ({}, {"mixup": 0.8, "cutmix": 1.0, "repeats": 3}, {"flip": 0.0, "erasing": 0.0}):
        assert torch.equal(vary(images, **fields), images)
    assert torch.equal(vary(images, flip=1.0), images.flip(-1))
    torch.testing.assert_close(
        vary(images, crop=(1.0, 1.0), seed=3)[:, :, 1:-1, 1:-1].mean(), images.mean(), atol=0.1, rtol=0
    )


@settings(max_examples=20)
@given(
    height=st.integers(16, 40),
    width=st.integers(16, 40),
    least=st.floats(0.2, 1),
    most=st.floats(0.2, 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_crop_is_a_part_of_the_image_of_the_right_size(height, width, least, most, seed):
    """Where each pixel comes from is read off images that hold their own coordinates."""
    least, most = sorted((least, most))
    down, across = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    images = torch.stack([down, across, torch.ones_like(down)])[None].repeat(50, 1, 1, 1)
    found = varied(images, AugmentSpec(crop=(least, most)), seed)
    torch.testing.assert_close(found[:, 2], images[:, 2])
    # Inside, where nothing is cut off at the border, a step from pixel to pixel is the size of the crop / the image's.
    middle = (slice(None), slice(height // 3, 2 * height // 3), slice(width // 3, 2 * width // 3))
    tall = found[:, 0].diff(dim=1)[middle].flatten(1).median(1).values
    wide = found[:, 1].diff(dim=2)[middle].flatten(1).median(1).values
    assert (tall <= 1 + 1e-3).all()
    assert (wide <= 1 + 1e-3).all()
    shares, aspects = tall * wide, (wide * width) / (tall * height)
    whole = (tall > 1 - 1e-3) & (wide > 1 - 1e-3)
    assert ((shares > least - 0.01) & (shares < most + 0.01) | whole).all()
    assert ((aspects > 0.74) & (aspects < 1.35) | whole).all()


def test_crops_are_as_large_as_timms():
    timm = RandomResizedCropAndInterpolation(32, scale=(0.08, 1.0))
    image = Image.new("RGB", (320, 320))
    with seeded((0,)):
        areas = [h * w / 320**2 for _, _, h, w in (timm.get_params(image, timm.scale, timm.ratio) for _ in range(4000))]
    ramp = torch.arange(32.0).expand(4000, 1, 32, 32)
    images = torch.cat([ramp, ramp.transpose(2, 3), ramp], 1)
    found = varied(images, AugmentSpec(crop=(0.08, 1.0)), 0)
    wide, tall = (found[:, 0].diff(dim=2)[:, 16, 16], found[:, 1].diff(dim=1)[:, 16, 16])
    for share in (0.1, 0.5, 0.9):
        assert float((wide * tall).quantile(share)) == pytest.approx(np.quantile(areas, share), abs=0.03)


@pytest.mark.parametrize("place", range(3))
def test_colours_are_jittered_as_torchvision_does(monkeypatch, place):
    """Each of brightness, contrast and saturation alone, on the first of the three that are drawn."""
    images = torch.rand(4, 3, 8, 8)
    adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)[place]
    factors = torch.tensor([0.6, 0.9, 1.1, 1.4]).view(-1, 1, 1, 1)
    monkeypatch.setattr(augment, "_draw", lambda *_: factors)
    monkeypatch.setattr(torch, "randperm", lambda _: torch.tensor([place]))
    expected = torch.stack([adjust(image, float(factor)) for image, factor in zip(images, factors, strict=True)])
    torch.testing.assert_close(augment._jittered(images, 0.4), expected, atol=2e-4, rtol=1e-3)


def test_a_policy_posterises_to_black_where_pillow_would_raise():
    for name in ("rand-m10-inc1-p1", "augmix-m10"):
        vary(pictures(200, 6, 6), auto=name)  # one of many draws posterises to no bits
    black = augment._posterised(Image.new("RGB", (2, 2), (200, 100, 50)), 0)
    assert black.getextrema() == ((0, 0),) * 3
    assert augment._posterised(Image.new("RGB", (2, 2), (200, 100, 50)), 1).getextrema() == ((128, 128), (0, 0), (0, 0))


def test_erased_is_a_rectangle_of_noise():
    images = torch.full((200, 3, 32, 32), 5.0)
    found = varied(images, AugmentSpec(erasing=0.25), 0)
    hit = (found != 5.0).all(1)
    share = hit.flatten(1).any(1).float().mean()
    assert 0.15 < float(share) < 0.35
    for mask in hit[hit.flatten(1).any(1)]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    noise = found[(found != 5.0)]
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05


def test_a_part_varies_its_images_only_where_there_are_seeds():
    spec = DataSpec(name="digits", image_size=8)
    plain, part = load(spec).train, load(spec, augment=AugmentSpec(flip=1.0)).train
    chosen = [torch.arange(4), torch.arange(4, 10)]
    for (images, labels), (flipped, same) in zip(
        plain.batches(chosen, [1, 2]), part.batches(chosen, [1, 2]), strict=True
    ):
        assert torch.equal(images.flip(-1), flipped)
        assert torch.equal(labels, same)
    for (images, _), (judged, _) in zip(plain.batches(chosen), part.batches(chosen), strict=True):
        assert torch.equal(images, judged)
    held_out = load(spec, augment=AugmentSpec(flip=1.0)).validation
    assert torch.equal(next(held_out.batches(chosen, [1, 2]))[0], next(load(spec).validation.batches(chosen))[0])


@pytest.mark.parametrize(
    "fields", [{"auto": "original"}, {"color_jitter": 0.4}, {"erasing": 0.5}, {"crop": [0.5, 1]}], ids=str
)
def test_bytes_are_varied_as_floats_are(fields):
    noise = torch.randint(0, 256, (5, 8, 8), dtype=torch.uint8)
    floats = ((noise.float() / 255 - 0.4) / 0.3)[:, None].expand(-1, 3, -1, -1).contiguous()
    labels, spec = torch.arange(5), AugmentSpec(**fields)
    parts = [MemoryPart(images, labels, mean=0.4, deviation=0.3, augment=spec) for images in (noise, floats)]
    (one, _), (other, _) = (next(part.batches([torch.arange(5)], [7])) for part in parts)
    torch.testing.assert_close(one, other)
