"""Which slots a machine offers: GPUs where there are any, shares of the CPU where there are none."""

from __future__ import annotations

import os

import pytest

from stemlab.engine.slots import Gpu, Slot, cores, find_gpus, plan
from stemlab.errors import EngineError
from stemlab.spec import EngineSpec

FOUR = [Gpu(index, "NVIDIA H200", 143771) for index in range(4)]


@pytest.mark.parametrize(
    ("engine", "concurrency", "expected"),
    [
        ({}, 3, [(0,), (1,), (2,)]),
        ({}, 8, [(0,), (1,), (2,), (3,)]),
        ({"trials_per_gpu": 2}, 6, [(0,), (1,), (2,), (3,), (0,), (1,)]),
        ({"gpus_per_trial": 2}, 8, [(0, 1), (2, 3)]),
        ({"gpus_per_trial": 3}, 8, [(0, 1, 2)]),
        ({"gpus": [3, 1]}, 8, [(3,), (1,)]),
        ({"workers": 1}, 8, [(0,)]),
    ],
)
def test_gpus_are_handed_out_once_each(engine, concurrency, expected):
    assert [slot.gpus for slot in plan(EngineSpec(**engine), concurrency, FOUR)] == expected


def test_a_slot_shows_its_worker_its_own_gpus_and_threads_alone():
    environment = Slot((3, 1), 2).environment()
    assert environment["CUDA_VISIBLE_DEVICES"] == "3,1"
    assert environment["OMP_NUM_THREADS"] == "2"
    assert Slot((), 1).environment()["CUDA_VISIBLE_DEVICES"] == ""


def test_without_gpus_the_cores_are_shared():
    assert plan(EngineSpec(), 1000, []) == [Slot((), 1)] * cores()
    assert plan(EngineSpec(threads=cores()), 1000, []) == [Slot((), cores())]
    assert plan(EngineSpec(gpus_per_trial=0), 1, FOUR) == [Slot((), 1)]
    assert plan(EngineSpec(workers=5), 1, []) == [Slot((), 1)] * 5  # more workers than cores, if asked for


@pytest.mark.parametrize(
    ("engine", "gpus", "fragment"),
    [
        ({"gpus_per_trial": 1}, [], "this machine has 0 GPUs"),
        ({"gpus_per_trial": 5}, FOUR, "this machine has 4 GPUs"),
        ({"gpus": [4]}, FOUR, "there is no GPU 4"),
        ({"gpus": [0, 1], "gpus_per_trial": 3}, FOUR, "2 GPUs to use"),
        ({"workers": 5}, FOUR, "room for 4 trials"),
    ],
)
def test_more_gpus_than_there_are_is_an_error_at_once(engine, gpus, fragment):
    with pytest.raises(EngineError, match=fragment):
        plan(EngineSpec(**engine), 1, gpus)


def test_gpus_are_read_from_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, NVIDIA H200, 143771'\necho '1, NVIDIA A100-SXM4-80GB, [N/A]'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_gpus() == [Gpu(0, "NVIDIA H200", 143771), Gpu(1, "NVIDIA A100-SXM4-80GB", 0)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.index for gpu in find_gpus()] == [1]
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2\nexit 9\n")
    assert find_gpus() == []
