"""The search loop: what a proposal may see is decided by its index, whatever the clock does."""

from __future__ import annotations

import random
import threading
import time

import pytest
from conftest import CONV3X3
from hypothesis import given, settings
from hypothesis import strategies as st

from stemlab.engine.loop import TrialLoop
from stemlab.engine.proposer import TunerProposer
from stemlab.engine.quiet import Quiet
from stemlab.engine.searching import Progress, Proposals
from stemlab.records import StudyFolder, TrialRecord
from stemlab.running import load_search


class SleepyRunner:
    """A runner whose trials take random times and whose results follow from the trial alone."""

    def __init__(self, slots: int, clock: random.Random, fail: float = 0.0, longest: float = 0.01) -> None:
        self.slots, self.clock, self.fail, self.longest = slots, clock, fail, longest
        self.lock = threading.Lock()
        self.running = self.most = 0

    def run(self, order, progress):
        trial = order.trial
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            pause = self.clock.random() * self.longest
        time.sleep(pause)
        value = int(trial.digest[:6], 16) / 16**6
        status = "ok" if value > self.fail else ("diverged" if value > self.fail / 2 else "failed")
        with self.lock:
            self.running -= 1
        metrics = {"top1": value, "seconds": pause} if status == "ok" else {}
        return TrialRecord(trial.digest, status, {}, {}, {}, trial.seed, metrics=metrics, error=None)

    def close(self):
        pass


class Watched(TunerProposer):
    """The real proposer, and a note of what it had been told before each proposal."""

    def __init__(self, candidates):
        super().__init__(candidates)
        self.seen_before = []
        self.told = 0

    def propose(self):
        self.seen_before.append(self.told)
        return super().propose()

    def tell(self, candidate, values):
        self.told += 1
        super().tell(candidate, values)


def search(tmp_path, clock_seed, concurrency, slots, trials=14, tuner="tpe", seeds="[0]", fail=0.0, longest=0.01):
    changes = [
        f"search.concurrency={concurrency}",
        f"search.trials={trials}",
        f"search.tuner={tuner}",
        f"search.seeds={seeds}",
    ]
    candidates = load_search(CONV3X3, changes)
    folder = StudyFolder(tmp_path)
    folder.open_to_write(candidates.study.canonical(), resume=folder.records_file.exists())
    proposer = Watched(candidates)
    runner = SleepyRunner(slots, random.Random(clock_seed), fail, longest)
    try:
        proposals = Proposals(Progress(candidates.study.search, proposer, Quiet().note))
        TrialLoop(proposals, runner, folder, Quiet(), folder.records()).run()
    finally:
        folder.close()
    return folder.records(), proposer, runner


def essence(records):
    return sorted(
        (r.proposal, r.seed, r.trial, r.status, str(r.assignment), str(r.metrics.get("top1"))) for r in records
    )


@pytest.mark.parametrize("tuner", ["tpe", "random", "grid", "evolution"])
@pytest.mark.parametrize(("concurrency", "slots"), [(1, 1), (2, 2), (4, 4), (4, 2)])
def test_the_clock_changes_nothing(tmp_path, tuner, concurrency, slots):
    runs = [search(tmp_path / str(i), i, concurrency, slots, tuner=tuner, fail=0.2) for i in range(3)]
    assert len(runs[0][0]) == 14
    assert essence(runs[0][0]) == essence(runs[1][0]) == essence(runs[2][0])
    for _, proposer, runner in runs:
        expected = [max(0, n - 2 * (concurrency - 1)) for n in range(14)]
        assert proposer.seen_before[:14] == expected
        assert runner.most <= min(concurrency, slots)


def test_concurrency_is_used(tmp_path):
    # Trials that take much longer than a proposal: all slots are at work at some time.
    _, _, runner = search(tmp_path, 0, 4, 4, trials=20, longest=1.0)
    assert runner.most == 4


def test_no_proposal_is_made_twice_and_an_exhausted_space_ends_the_search(tmp_path):
    records, _, _ = search(tmp_path, 0, 3, 3, trials=500)
    assert len(records) == len({r.trial for r in records}) == 157  # all that are feasible


@settings(max_examples=15)
@given(cut=st.integers(0, 12), torn=st.booleans(), clock=st.integers(0, 1000))
def test_a_cut_study_resumes_to_the_same_records(tmp_path_factory, cut, torn, clock):
    whole, _, _ = search(tmp_path_factory.mktemp("whole"), clock, 2, 2, trials=8, seeds="[0, 1]", fail=0.1)
    folder = tmp_path_factory.mktemp("cut")
    first, _, _ = search(folder, clock + 1, 2, 2, trials=8, seeds="[0, 1]", fail=0.1)
    file = folder / "records.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:cut]) + (lines[cut][:50] if torn else b""))
    resumed, _, _ = search(folder, clock + 2, 2, 2, trials=8, seeds="[0, 1]", fail=0.1)
    assert essence(whole) == essence(first) == essence(resumed)
    assert len(file.read_bytes().splitlines()) == 16
