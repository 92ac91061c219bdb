"""A long search with nothing to train: what a trial costs us does not grow with their number."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from conftest import CONV3X3, REPOSITORY

from stemlab.engine.embedded import EmbeddedRunner
from stemlab.engine.loop import TrialLoop
from stemlab.engine.proposer import TunerProposer
from stemlab.engine.quiet import Quiet
from stemlab.engine.searching import Progress, Proposals
from stemlab.engine.slots import Slot
from stemlab.records import StudyFolder
from stemlab.running import load_search

pytestmark = pytest.mark.slow

TRIALS, TENTH = 300, 30
WIDE = (
    "model.stem={channels: [{int: [4, 32]}, {int: [8, 64]}, {int: [8, 96]}, {int: [8, 96]}], "
    "kernels: {choice: [3, 5]}, strides: {choice: [[2, 2, 2, 1], [2, 2, 1, 2], [2, 1, 2, 2], [1, 2, 2, 2]]}, "
    "norm: {choice: [batch, none]}, act: {choice: [relu, scaled_relu, gelu]}}"
)


class Meter(Quiet):
    """Notes the processor time of this process, whatever else the machine does, behind each tenth of the trials."""

    def __init__(self):
        self.count, self.times = 0, [time.process_time()]

    def finished(self, record, reused):
        self.count += 1
        if self.count % TENTH == 0:
            self.times.append(time.process_time())

    @property
    def tenths(self):
        return [after - before for before, after in pairwise(self.times)]


class Nothing:
    """A runner that is never asked."""

    slots = 30

    def run(self, order, progress):
        raise AssertionError("a trial was run again")

    def close(self):
        pass


def search(path, tuner, runner, resume=False):
    changes = [WIDE, f"search.trials={TRIALS}", f"search.tuner={tuner}", "search.concurrency=30"]
    candidates = load_search(CONV3X3, changes)
    folder = StudyFolder(path)
    folder.open_to_write(candidates.study.canonical(), resume)
    meter = Meter()
    try:
        source = Proposals(Progress(candidates.study.search, TunerProposer(candidates), meter.note))
        TrialLoop(source, runner, folder, meter, folder.records()).run()
    finally:
        folder.close()
    return folder.records(), meter


@pytest.mark.parametrize("tuner", ["random", "tpe"])
def test_three_hundred_trials_cost_each_what_the_first_ones_did(tmp_path, tuner, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "benchmarks"))
    monkeypatch.setenv("STEMLAB_SIMULATED_SECONDS", "0.05")
    runner = EmbeddedRunner([Slot((), 1)] * 6, work="simulated_work:sleep")
    records, meter = search(tmp_path, tuner, runner)
    assert [record.status for record in records] == ["ok"] * TRIALS
    assert len({record.trial for record in records}) == TRIALS
    first, last = sorted(meter.tenths[1:4])[1], sorted(meter.tenths[-3:])[1]
    assert last < 4 * first + 0.5, meter.tenths
    again, retraced = search(tmp_path, tuner, Nothing(), resume=True)
    assert again == records
    assert retraced.count == TRIALS
    assert sum(retraced.tenths) < 60
