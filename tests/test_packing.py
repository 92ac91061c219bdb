"""Trials that share a GPU: never more than its memory holds, and none that waits for ever."""

from __future__ import annotations

import random
import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoint import a_trial

from stemlab.builders import build_model
from stemlab.data.digits import load_digits
from stemlab.engine import embedded
from stemlab.engine.embedded import InlineRunner
from stemlab.engine.packing import CONTEXT, Pool, memory_needed, room
from stemlab.engine.slots import SHARED, SHARING, Gpu, Slot, plan
from stemlab.errors import EngineError
from stemlab.matching import match
from stemlab.spec import EngineSpec, Order, TrialSpec
from stemlab.train.run import Run

FOUR = [Gpu(index, "NVIDIA H200", 143771) for index in range(4)]
MIB = 2**20


class Machine:
    """Made-up GPUs, and a note of all that ran on them."""

    def __init__(self, rooms, sharing):
        self.rooms, self.pool, self.lock = rooms, Pool(rooms), threading.Lock()
        self.on = {gpu: {} for gpu in rooms}
        self.faults, self.done = [], []
        for gpu in list(rooms) * sharing:
            self.pool.add((gpu, object()), (gpu,))

    def run(self, number, need, seconds):
        worker = self.pool.take(need)
        gpu = worker[0]
        with self.lock:
            others = self.on[gpu]
            if others and sum(others.values()) + need > self.rooms[gpu]:
                self.faults.append((gpu, need, dict(others)))
            others[number] = need
        time.sleep(seconds)
        with self.lock:
            del self.on[gpu][number]
            self.done.append(number)
        self.pool.give_back(worker, (gpu,), need)


@settings(max_examples=30)
@given(
    rooms=st.dictionaries(st.integers(0, 3), st.integers(0, 100), min_size=1, max_size=3),
    sharing=st.integers(1, 4),
    needs=st.lists(st.integers(0, 150), min_size=1, max_size=24),
    seed=st.integers(0, 99),
)
def test_no_gpu_is_ever_over_committed_and_every_trial_runs(rooms, sharing, needs, seed):
    clock, machine = random.Random(seed), Machine(rooms, sharing)
    threads = [
        threading.Thread(target=machine.run, args=(number, need, clock.random() * 0.002), daemon=True)
        for number, need in enumerate(needs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert machine.faults == []
    assert sorted(machine.done) == list(range(len(needs)))
    assert not any(machine.pool.used.values())


def test_a_large_trial_is_not_passed_over_by_small_ones():
    """Small trials come without end, and keep the GPU half full: first come, first served."""
    machine, over = Machine({0: 100}, 4), threading.Event()

    def small(number):
        while not over.is_set():
            machine.run(number, 40, 0.002)

    def large():
        machine.run("large", 100, 0)
        over.set()

    threads = [threading.Thread(target=small, args=(n,), daemon=True) for n in range(4)]
    threads.append(threading.Thread(target=large, daemon=True))
    for thread in threads:
        thread.start()
    assert over.wait(60)
    for thread in threads:
        thread.join(60)
    assert machine.faults == []


def test_trials_go_to_the_gpu_with_most_room():
    pool = Pool({0: 100, 1: 100, 2: 50})
    for gpu in (0, 1, 2) * 3:
        pool.add(gpu, (gpu,))
    assert [pool.take(30) for _ in range(4)] == [0, 1, 0, 1]


def test_where_nobody_counts_the_next_idle_worker_is_taken():
    pool = Pool({})
    for worker in "ab":
        pool.add(worker, (0,))
    assert [pool.take(10**9), pool.take(10**9)] == ["a", "b"]
    pool.give_back("b", (0,), 10**9)
    assert pool.take(0) == "b"


# The slots.


def test_by_memory_a_gpu_has_as_many_slots_as_there_are_trials_to_run():
    auto = EngineSpec(trials_per_gpu="auto", gpus=(3, 1))
    slots = plan(auto, 5, FOUR)
    assert [slot.gpus for slot in slots] == [(3,), (1,), (3,), (1,), (3,)]
    assert {slot.room for slot in slots} == {room(143771, 3)} == {int(143771 * 0.9) - 3 * CONTEXT}
    assert slots[0].environment()[SHARED] == "1"
    assert Slot((3,), 1).environment()[SHARED] == "0"
    assert len(plan(auto, 1000, FOUR)) == 2 * SHARING
    assert len(plan(auto.replace(workers=3), 1000, FOUR)) == 3
    with pytest.raises(EngineError, match=f"room for {2 * SHARING} trials"):
        plan(auto.replace(workers=2 * SHARING + 1), 1000, FOUR)


def test_a_gpu_of_unknown_memory_cannot_be_shared_by_it():
    with pytest.raises(EngineError, match=r"\(=auto\): nvidia-smi does not say how much memory GPU 7 has"):
        plan(EngineSpec(trials_per_gpu="auto"), 2, [Gpu(7, "A GPU", 0)])


def test_several_gpus_for_a_trial_need_a_process_for_each():
    (slot,) = plan(EngineSpec(gpus_per_trial=4), 3, FOUR)
    assert slot.environment()["STEMLAB_PROCESSES"] == "4"
    assert Slot((), 2).environment()["STEMLAB_PROCESSES"] == "1"
    with pytest.raises(EngineError, match="a trial on several GPUs needs processes of its own"):
        plan(EngineSpec(gpus_per_trial=2, workers=0), 3, FOUR)


def test_in_the_calling_process_a_slot_is_a_device_of_torch(monkeypatch):
    monkeypatch.setattr(embedded, "find_gpus", lambda: FOUR[1:])  # torch counts those that it sees
    assert InlineRunner(Slot((3,), 1))._device == "cuda:2"
    assert InlineRunner(Slot((), 1))._device == "cpu"
    record = InlineRunner(Slot((), 1)).run(Order(trial=a_trial(epochs=2)), lambda row: None)
    assert record.status == "ok", record.error


# The estimate.

MODELS = {
    "patchify": ({"patch": 16}, {"dim": 192, "depth": 4, "heads": 3}, 64),
    "convolutions": (
        {"channels": [24, 48, 96, 192], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"},
        {"dim": 192, "depth": 3, "heads": 3},
        64,
    ),
    "many tokens": ({"patch": 4}, {"dim": 64, "depth": 6, "heads": 4}, 48),
    "wide": ({"patch": 8}, {"dim": 384, "depth": 2, "heads": 6, "mlp_ratio": 4}, 32),
}


@pytest.mark.parametrize(("stem", "body", "size"), MODELS.values(), ids=MODELS)
def test_the_estimate_covers_what_a_step_keeps_and_not_much_more(stem, body, size):
    """Weights, gradients, optimizer states and all that the backward pass keeps, summed up on the CPU."""
    spec = TrialSpec.model_validate(
        {
            "model": {"stem": stem, "body": body, "image_size": size, "classes": 10},
            "data": {"name": "digits", "image_size": size},
            "train": {"batch_size": 64},
            "seed": 0,
        }
    )
    model = build_model(match(spec.model).model, seed=0)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    small = load_digits(spec.data.replace(image_size=8), "cpu").train
    images = torch.nn.functional.interpolate(small.images[:64], size=(size, size))
    run = Run(model, spec.train, 0, type(small)(images, small.labels[:64]))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run.epoch()
    states = [v for s in run.optimizer.state.values() for v in s.values()]
    tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *states]
    steady = sum(tensor.nbytes for tensor in tensors)
    data = 1797 * 3 * size * size * 4
    needed = (steady + sum(kept.values()) + data) / MIB
    assert needed <= memory_needed(spec) <= 4 * needed


def test_the_estimate_grows_with_what_takes_memory():
    def need(**train):
        return memory_needed(
            TrialSpec.model_validate(
                {
                    "model": {"stem": {"patch": 16}, "body": {"dim": 384, "depth": 12, "heads": 6}, "classes": 10},
                    "data": {"name": "digits", "image_size": 224},
                    "train": train,
                    "seed": 0,
                }
            )
        )

    assert need(batch_size=512) > 1.9 * need(batch_size=256) - need(batch_size=1)
    assert need(batch_size=512, precision="bf16") < need(batch_size=512)
    assert need(batch_size=1, optimizer="sgd") < need(batch_size=1, optimizer="adamw")
