"""Fractals: drawn right, each from its own numbers alone, none empty or a blot, and classes that can be told apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stemlab.data import fractals as data
from stemlab.data import ifs
from stemlab.data.fractals import class_system, fractal_images, fractals
from stemlab.errors import StemlabError
from stemlab.spec import DataSpec

SMALL = DataSpec(name="fractals", classes=4, images_per_class=10, image_size=16)


def counted(system, size, points):
    """How much of a system's fractal is in each pixel."""
    (counts,) = ifs.render(system.maps[None], ifs.addresses(system.shares, points), (size, size))
    return counts


def chaos_game(system, points, steps=400):
    """Points of the fractal (points * steps, 2), as it is usually drawn: each by one random map of the last one."""
    random = np.random.default_rng(0)
    place, found = np.zeros((points, 2)), []
    for step in range(50 + steps):
        chosen = system.maps[random.choice(len(system.shares), points, p=system.shares)]
        place = (chosen[..., :2] @ place[..., None])[..., 0] + chosen[..., 2]
        if step >= 50:
            found.append(place)
    return np.concatenate(found)


# How they are drawn.


@settings(max_examples=50)
@given(st.lists(st.floats(0.02, 1), min_size=2, max_size=8), st.integers(2, 300))
def test_addresses_divide_the_whole_fractal_into_parts_of_like_size(sizes, count):
    shares = np.array(sizes) / sum(sizes)
    parts = ifs.addresses(shares, count)
    assert count <= len(parts.shares) < count + len(shares)
    assert parts.shares.sum() == pytest.approx(1)
    assert np.append(shares, 1)[parts.steps].prod(0) == pytest.approx(parts.shares)
    assert parts.shares.min() >= parts.shares.max() * shares.min() * (1 - 1e-9)
    addresses = {tuple(step for step in column if step < len(shares)) for column in parts.steps.T}
    assert len(addresses) == len(parts.shares)
    assert not any(one[:length] in addresses for one in addresses for length in range(len(one)))


def test_sierpinskis_triangle_is_where_it_should_be():
    """Of 64 x 64 pixels it touches those whose coordinates have no binary digit in common, 3**6 of them."""
    half = np.eye(2) / 2
    corners = np.array([[[0], [0]], [[0.5], [0]], [[0], [0.5]]])
    maps = np.concatenate([np.broadcast_to(half, (3, 2, 2)), corners], 2)
    counts = counted(ifs.System(maps, np.full(3, 1 / 3)), 64, 243)
    y, x = np.indices((64, 64))
    inside = (x & y) == 0
    assert (counts[inside] > 0).all()
    assert counts[inside].sum() > 0.97 * counts.sum()
    assert counts.sum() == pytest.approx(243**2)
    assert counts[inside].std() < 0.1 * counts[inside].mean()


@pytest.mark.parametrize("number", range(5))
def test_fractals_are_those_of_the_chaos_game(number):
    system = class_system(0, number)
    counts = counted(system, 16, 300)
    points = chaos_game(system, 500)
    low, high = points.min(0), points.max(0)
    x, y = ((points - low) / (high - low) * 15.999).astype(int).T
    expected = np.bincount(y * 16 + x, minlength=256).reshape(16, 16)
    apart = np.abs(counts / counts.sum() - expected / expected.sum()).sum() / 2
    assert apart < 0.05


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (24, 40)])
def test_images_have_any_size(size):
    images = fractal_images(2, 3, size, seed=0)
    assert images.shape == (6, *size)
    assert images.dtype == np.uint8
    assert (images.max((1, 2)) > 0).all()


# What an image depends on.


def test_images_follow_from_their_own_numbers_alone(monkeypatch):
    whole = fractal_images(3, 7, (12, 20), seed=5).reshape(3, 7, 12, 20)
    assert np.array_equal(fractal_images(5, 4, (12, 20), seed=5).reshape(5, 4, 12, 20)[:3], whole[:, :4])
    monkeypatch.setattr(data, "BLOCK", 2)
    monkeypatch.setattr(data, "TASK", 3)
    assert np.array_equal(fractal_images(3, 7, (12, 20), seed=5).reshape(3, 7, 12, 20), whole)
    assert not np.array_equal(fractal_images(3, 7, (12, 20), seed=6).reshape(3, 7, 12, 20), whole)
    assert len(np.unique(whole.reshape(21, -1), axis=0)) == 21


def test_the_formula_is_that_of_the_kept_images():
    """Who changes what comes out must count up FORMULA, or old images are read for new ones."""
    assert data.FORMULA == 1
    systems = [class_system(data.SEED, number) for number in range(3)]
    assert [float(system.maps.sum()) for system in systems] == pytest.approx(
        [-0.728550963334177, 4.633796922881845, 3.34983138189349]
    )
    images = fractal_images(3, 4, (32, 32), data.SEED)
    assert images.mean() == pytest.approx(57.91, abs=0.02)


# How they look.


def test_no_image_is_empty_or_a_blot():
    images = fractal_images(60, 5, (64, 64), seed=0)
    filled = (images > 0).mean((1, 2))
    assert filled.min() > 0.12
    assert filled.max() < 0.8
    assert images.max((1, 2)).min() >= 128
    for edge in (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]):
        assert edge.any(1).all()


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6))
def test_no_variation_blows_up(number, drawn):
    maps, _ = data._variations(class_system(1, number).maps, np.array([drawn]))
    assert ifs.stretch(maps) <= data.STRETCH + 1e-9


def test_classes_can_be_told_apart_but_not_too_easily():
    images = fractal_images(10, 60, (32, 32), seed=0).reshape(10, 60, -1) / 255
    means = images[:, :40].mean(1)
    apart = ((images[:, 40:, None] - means) ** 2).sum(-1)
    right = (apart.argmin(-1) == np.arange(10)[:, None]).mean()
    assert 0.3 < right < 0.9


# The data set.


def test_every_image_is_in_one_part_and_all_classes_are_in_each():
    found = fractals(SMALL)
    parts = [found[name] for name in ("train", "validation", "test")]
    assert tuple(map(len, parts)) == SMALL.part_sizes
    assert sorted(np.concatenate(parts)) == list(range(40))
    assert all(np.ptp(np.bincount(found["labels"][part], minlength=4)) == 0 for part in parts)
    assert np.array_equal(found["images"], fractal_images(4, 10, (16, 16), data.SEED))


@pytest.mark.parametrize(("classes", "images", "share", "left"), [(5, 3, 0.45, 1), (2, 2, 0.4, 0)])
def test_too_few_images_to_split_are_refused(classes, images, share, left):
    with pytest.raises(ValidationError, match=f"leaves {left} images to train {classes} classes on"):
        DataSpec(name="fractals", classes=classes, images_per_class=images, validation=0.45, test=share)


def test_images_are_made_once_for_all_splits(monkeypatch, tmp_path):
    monkeypatch.setenv("STEMLAB_CACHE", str(tmp_path))
    seen = []
    first = fractals(SMALL, lambda done, total: seen.append((done, total)))
    assert seen == [(10, 40), (20, 40), (30, 40), (40, 40)]
    other = fractals(SMALL.replace(split_seed=1), lambda *news: seen.append(news))
    assert len(seen) == 4
    assert np.array_equal(first["images"], other["images"])
    assert not np.array_equal(first["test"], other["test"])
    fractals(SMALL.replace(image_size=(8, 16)), lambda *news: seen.append(news))
    assert len(seen) == 8


def test_who_stops_the_making_stops_it(monkeypatch):
    monkeypatch.setattr(data, "TASK", 1)

    def stop(done, total):
        raise KeyboardInterrupt

    made = []
    monkeypatch.setattr(data, "class_system", lambda *key: made.append(key) or class_system(*key))
    with pytest.raises(KeyboardInterrupt):
        fractal_images(1, 3000, (8, 8), 0, stop)
    assert len(made) < 2000


def test_a_set_that_memory_does_not_hold_is_refused():
    with pytest.raises(StemlabError, match=r"1000000 x 1000000 fractals of 224 x 224 pixels take \d+\.\d GB of memory"):
        fractal_images(10**6, 10**6, (224, 224), 0)
