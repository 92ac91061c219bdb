"""Data sets: parts that do not overlap, made once on a machine and never taken from a damaged file."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets

from stemlab.data import cache
from stemlab.data.digits import load_digits
from stemlab.data.scans import scans
from stemlab.spec import DataSpec

SPEC = DataSpec(name="digits")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache that is empty."""
    monkeypatch.setenv("STEMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@settings(max_examples=20)
@given(st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.integers(0, 2**32 - 1))
def test_every_scan_is_in_one_part_and_all_classes_are_in_each(validation, test, seed):
    spec = DataSpec(name="digits", validation=validation, test=test, split_seed=seed)
    raw, whole = scans(spec), datasets.load_digits()
    parts = [raw[name] for name in ("train", "validation", "test")]
    assert tuple(map(len, parts)) == spec.part_sizes
    assert sorted(np.concatenate(parts)) == list(range(len(whole.target)))
    assert np.array_equal(raw["images"], whole.images)
    assert np.array_equal(raw["labels"], whole.target)
    shares = np.bincount(whole.target) / len(whole.target)
    rest = len(parts[0]) + len(parts[1])
    # The test part is rounded to whole images once; the others share what that left, and are rounded again.
    for part, rounded in zip(parts, (1 + len(parts[0]) / rest, 1 + len(parts[1]) / rest, 1), strict=True):
        counted = np.bincount(raw["labels"][part], minlength=10)
        assert np.abs(counted - shares * len(part)).max() <= rounded


def test_what_is_kept_is_what_was_made(fresh):
    made = scans(SPEC)
    (file,) = (fresh / "data").iterdir()
    before = file.stat().st_mtime_ns
    assert same(scans(SPEC), made)
    assert file.stat().st_mtime_ns == before
    assert not same(scans(SPEC.replace(split_seed=1)), made)
    assert len(list((fresh / "data").iterdir())) == 2


@pytest.mark.parametrize("damage", ["a byte", "its end", "all of it"])
def test_a_damaged_file_is_made_anew(fresh, damage):
    made = scans(SPEC)
    (file,) = (fresh / "data").iterdir()
    whole = file.read_bytes()
    broken = {"a byte": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "its end": whole[:-9], "all of it": b""}
    file.write_bytes(broken[damage])
    assert same(scans(SPEC), made)
    assert file.read_bytes() == whole


def test_where_nothing_can_be_kept_it_is_made_each_time(fresh):
    fresh.write_text("this is no folder")
    made = [cache.kept("x", lambda: {"a": np.arange(3)}) for _ in range(2)]
    assert same(*made)


def test_what_one_changes_others_do_not_see(fresh):
    first, other = scans(SPEC), scans(SPEC)
    mine = [scans(SPEC) for _ in range(2)]
    mine[0]["images"][:] = 99
    assert same(first, other)
    assert same(mine[1], other)
    assert same(scans(SPEC), other)


def test_several_kinds_of_arrays_are_kept_together(fresh):
    made = {
        "odd": np.arange(7, dtype=np.uint8),
        "none": np.zeros((0, 3), np.float32),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "whole": np.arange(3),
        "whether": np.array([True, False]),
    }
    cache.kept("kinds", lambda: made)
    found = cache.kept("kinds", lambda: pytest.fail("made again"))
    assert same(found, made)
    assert all(found[name].dtype == made[name].dtype for name in made)


def test_one_process_makes_what_others_wait_for(fresh, tmp_path):
    program = (
        "import sys, time, numpy as np; from stemlab.data.cache import kept\n"
        "def make():\n"
        "    open(sys.argv[1], 'a').write('made ')\n"
        "    time.sleep(2)\n"
        "    return {'a': np.arange(3)}\n"
        "print(kept('slow', make)['a'])"
    )
    note = tmp_path / "note"
    command = [sys.executable, "-c", program, str(note)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=120)[0] for process in running] == ["[0 1 2]\n"] * 3
    assert note.read_text() == "made "


def test_a_large_set_is_in_memory_once(fresh):
    """It is made into memory, written from there, and read without a copy: all processes have the file's pages."""
    program = (
        "import numpy as np, psutil, resource; from stemlab.data.cache import kept\n"
        "def own():\n"
        "    memory = psutil.Process().memory_info()\n"
        "    return memory.rss - memory.shared\n"
        "most = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = own(), most()\n"
        "kept('large', lambda: {'a': np.ones((300, 1000, 1000), np.uint8)})\n"
        "print(own() - before[0], most() - before[1])"
    )
    for most_own, most_ever in ((450e6, 450e6), (50e6, 350e6)):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        own, ever = map(int, done.stdout.split())
        assert own < most_own
        assert ever < most_ever


def test_who_finds_the_scans_kept_needs_no_scikit_learn():
    """A worker is ready to train a second and a half sooner."""
    expected = load_digits(SPEC).validation
    program = (
        "import sys, stemlab.train; from stemlab.data.digits import load_digits; from stemlab.spec import DataSpec;"
        "part = load_digits(DataSpec(name='digits')).validation;"
        "print('sklearn' in sys.modules, part.images.double().sum().item(), part.labels.sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported, images, labels = done.stdout.split()
    assert imported == "False"
    assert float(images) == pytest.approx(expected.images.double().sum().item())
    assert int(labels) == expected.labels.sum()


def test_images_are_normalised_by_the_training_part_alone():
    data = load_digits(SPEC)
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert data.train.images.mean().abs() < 1e-4
    assert (data.train.images.std() - 1).abs() < 1e-3
    other = load_digits(SPEC.replace(split_seed=1))
    assert not torch.equal(data.train.images, other.train.images)
