"""Searches that stop trials early, end early, or judge by draws: the clock changes nothing, and a cut one resumes."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time

import numpy as np
import pytest
from conftest import CONV3X3
from hypothesis import given, settings
from hypothesis import strategies as st

from stemlab.analysis.judging import judged
from stemlab.engine.halving import Brackets, plans
from stemlab.engine.loop import TrialLoop
from stemlab.engine.median import MedianRule
from stemlab.engine.proposer import TunerProposer
from stemlab.engine.quiet import Quiet
from stemlab.engine.searching import Progress, Proposals
from stemlab.errors import SpecError
from stemlab.records import StudyFolder, TrialRecord
from stemlab.running import load_search
from stemlab.spec import FidelitySpec, Objective
from stemlab.spec.search import QuantileSpec

EPOCHS = 9


class CurveRunner:
    """A runner whose learning curves follow from the trial alone, rise, and are cut as the order says."""

    def __init__(self, slots: int, clock: int, fail: float = 0.0) -> None:
        self.slots, self.clock, self.fail = slots, random.Random(clock), fail
        self.epochs = self.orders = 0

    def run(self, order, progress):
        time.sleep(self.clock.random() * 0.005)
        end, value, noise = order.until or EPOCHS, *parts(order.trial.digest)
        curve = [{"epoch": e, "top1": value * (1 - 0.8**e) + 0.05 * noise / e} for e in range(1, end + 1)]
        status = "pruned" if order.until else "ok"
        if order.floor is not None:
            for row, floor in zip(list(curve), order.floor.values, strict=False):
                if floor is not None and max(r["top1"] for r in curve[: row["epoch"]]) < floor:
                    curve, status = curve[: row["epoch"]], "pruned"
                    break
        self.epochs += len(curve)
        self.orders += 1
        if value < self.fail:
            return TrialRecord(order.trial.digest, "diverged", {}, {}, {}, 0)
        metrics = {"top1": curve[-1]["top1"], "seconds": 0.0}
        return TrialRecord(order.trial.digest, status, {}, {}, {}, 0, metrics=metrics, curve=curve)

    def close(self):
        pass


def parts(digest: str) -> tuple[float, float]:
    return int(digest[:6], 16) / 16**6, int(digest[6:12], 16) / 16**6


class Watched(TunerProposer):
    """The real proposer, and how much it had been told before each proposal."""

    def __init__(self, candidates):
        super().__init__(candidates)
        self.before, self.told = [], []

    def propose(self):
        self.before.append(len(self.told))
        return super().propose()

    def tell(self, candidate, values):
        self.told.append((candidate.identity, values))
        super().tell(candidate, values)


def search(folder, *changes, clock=0, slots=2, fail=0.0, hours=lambda: 0.0):
    candidates = load_search(CONV3X3, [f"train.epochs={EPOCHS}", *changes])
    study = StudyFolder(folder)
    study.open_to_write(candidates.study.canonical(), resume=study.records_file.exists())
    proposer, notes = Watched(candidates), []
    progress = Progress(candidates.study.search, proposer, notes.append, hours)
    fidelity = candidates.study.search.fidelity
    by_halves = fidelity is not None and fidelity.kind != "median"
    source = Brackets(progress, fidelity, EPOCHS) if by_halves else Proposals(progress)
    runner = CurveRunner(slots, clock, fail)
    try:
        TrialLoop(source, runner, study, Quiet(), study.records()).run()
    finally:
        study.close()
    return study.records(), proposer, progress, runner, source


def essence(records):
    return sorted((r.proposal, r.trial, r.until or 0, r.status, str(r.metrics.get("top1"))) for r in records)


FIDELITIES = ["{kind: halving, eta: 3}", "{kind: hyperband, eta: 3}", "{kind: median, warmup: 3}"]


@given(
    kind=st.sampled_from(["halving", "hyperband"]),
    eta=st.integers(2, 5),
    least=st.integers(1, 5),
    epochs=st.integers(1, 100),
    proposals=st.integers(1, 200),
)
def test_brackets_hold_all_proposals_and_train_to_the_end(kind, eta, least, epochs, proposals):
    made = plans(FidelitySpec(kind=kind, eta=eta, min_epochs=least), epochs, proposals)
    assert sum(plan.size for plan in made) == proposals
    for plan in made:
        assert plan.rungs[-1] == epochs
        assert list(plan.rungs) == sorted(set(plan.rungs))
        assert plan.rungs[0] >= min(least, epochs)
        sizes = [plan.survivors(rung, eta) for rung in range(len(plan.rungs))]
        assert sizes[0] == plan.size
        assert all(1 <= after <= before for before, after in itertools.pairwise(sizes))
    if kind == "hyperband" and proposals == 200:
        assert {len(plan.rungs) for plan in made} == set(range(1, len(made[0].rungs) + 1))


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize(("concurrency", "slots"), [(1, 1), (4, 3)])
def test_the_clock_changes_nothing(tmp_path, fidelity, concurrency, slots):
    changes = (f"search.concurrency={concurrency}", f"search.fidelity={fidelity}", "search.trials=24")
    runs = [search(tmp_path / str(i), *changes, clock=i, slots=slots, fail=0.2) for i in range(3)]
    assert essence(runs[0][0]) == essence(runs[1][0]) == essence(runs[2][0])
    assert runs[0][1].told == runs[1][1].told == runs[2][1].told
    full = search(tmp_path / "full", f"search.concurrency={concurrency}", "search.trials=24", slots=slots, fail=0.2)
    assert runs[0][3].epochs < full[3].epochs


@settings(max_examples=5)
@given(cut=st.integers(0, 30), fidelity=st.sampled_from(FIDELITIES), clock=st.integers(0, 1000))
def test_a_cut_search_resumes_to_the_same_records(tmp_path_factory, cut, fidelity, clock):
    changes = ("search.concurrency=3", f"search.fidelity={fidelity}", "search.trials=15", "search.seeds=[0, 1]")
    whole, *_ = search(tmp_path_factory.mktemp("whole"), *changes, clock=clock, fail=0.1)
    folder = tmp_path_factory.mktemp("cut")
    search(folder, *changes, clock=clock + 1, fail=0.1)
    file = folder / "records.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:cut]))
    resumed, _, _, runner, _ = search(folder, *changes, clock=clock + 2, fail=0.1)
    assert essence(whole) == essence(resumed)
    assert runner.orders == max(0, len(whole) - cut)


def test_halving_trains_the_best_on_and_tells_each_bracket_whole(tmp_path):
    records, proposer, progress, _, source = search(
        tmp_path, "search.concurrency=2", "search.trials=27", "search.fidelity={kind: halving, eta: 3}"
    )
    for first in range(0, 27, 9):
        bracket = {p.number for p in progress.proposals[first : first + 9]}
        rungs = [{r.proposal: r.metrics["top1"] for r in records if r.until == until and r.proposal in bracket}
                 for until in (1, 3, None)]  # fmt: skip
        assert [len(rung) for rung in rungs] == [9, 3, 1]
        for rung, after in itertools.pairwise(rungs):
            assert set(after) == set(sorted(rung, key=rung.__getitem__)[-len(after) :])
    assert proposer.before == [0] * 18 + [9] * 9
    assert source.total == len(records) == 39


def test_halving_at_one_trial_a_time_sees_all_brackets_before(tmp_path):
    _, proposer, *_ = search(
        tmp_path, "search.concurrency=1", "search.trials=27", "search.fidelity={kind: halving, eta: 3}", slots=1
    )
    assert proposer.before == [0] * 9 + [9] * 9 + [18] * 9


def test_a_floor_is_the_median_of_running_means():
    curves = [[{"top1": v} for v in values] for values in ([0.1, 0.5, 0.9], [0.3, 0.3], [0.2, 0.8, 0.2])]
    rules = (
        MedianRule(FidelitySpec(kind="median", min_epochs=2), Objective(maximize="top1")),
        MedianRule(FidelitySpec(kind="median"), Objective(minimize="top1_error")),
    )
    for rule in rules:
        for curve in curves:
            rule.add(curve)
    floor, errors = (rule.floor() for rule in rules)
    assert floor.values == (None, 0.3, pytest.approx(statistics.median([0.5, 0.4])))
    assert errors.sign == -1
    assert errors.values[0] == pytest.approx(0.8)


def test_median_stopping_stops_some_and_never_the_warmup(tmp_path):
    records, *_ = search(tmp_path, "search.trials=30", "search.fidelity={kind: median, warmup: 6, min_epochs: 2}")
    pruned = {r.proposal for r in records if r.status == "pruned"}
    assert pruned
    assert min(pruned) >= 6
    assert all(len(r.curve) >= 2 for r in records)


# Judging by draws.


@given(
    values=st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=1, max_size=12),
    how=st.sampled_from([None, "mean", "median", "worst", QuantileSpec(quantile=0.25), QuantileSpec(quantile=0.9)]),
    sign=st.sampled_from([1, -1]),
)
def test_judging_agrees_with_numpy(values, how, sign):
    gains = np.array([-math.inf if v is None else sign * v for v in values])
    with np.errstate(invalid="ignore"):
        if isinstance(how, QuantileSpec):
            expected = np.quantile(gains, how.quantile, method="inverted_cdf")
        else:
            expected = {"median": np.median, "worst": np.min}.get(how, np.mean)(gains)
    found = judged(values, how, sign)
    assert (found is None) == (not np.isfinite(expected))
    if found is not None:
        assert found == pytest.approx(sign * expected)


ROBUST = (
    "train.lr={log_uniform: [1.0e-4, 1.0e-1]}",
    "search.draws={over: [train.lr], count: 5, seed: 3}",
    "search.judge=median",
)


def test_all_proposals_are_trained_on_the_same_draws_and_judged_by_their_median(tmp_path):
    records, proposer, progress, *_ = search(tmp_path, *ROBUST, "search.trials=8", "search.seeds=[0, 1]", fail=0.3)
    assert len(records) == 8 * 5 * 2
    draws = {
        p.number: [r.assignment["train.lr"] for r in records if r.proposal == p.number] for p in progress.proposals
    }
    assert all(sorted(found) == sorted(draws[0]) for found in draws.values())
    assert len(set(draws[0])) == 5
    assert "train.lr" not in {hole.name for hole in proposer.candidates.holes}
    for (_, told), proposal in zip(proposer.told, progress.proposals, strict=False):
        gains = [
            parts(t.digest)[0] >= 0.3 and proposal.records[t.digest].metrics["top1"] for t in proposal.candidate.trials
        ]
        middle = statistics.median([-math.inf if gain is False else gain for gain in gains])
        assert told == (None if math.isinf(middle) else (middle,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("search.draws={over: [train.lr]}", "search.draws.over[0]: 'train.lr' cannot be drawn: train has no holes"),
        ("search.draws={over: []}", "search.draws.over"),
        ("search.judge=best", "search.judge: unknown value 'best'"),
        ("search.judge={quantile: 1.0}", "search.judge.quantile"),
        ("search.fidelity={kind: halving, eta: 1}", "search.fidelity.eta"),
        ("search.objective=[{maximize: top1}, {minimize: flop}]", "unknown value 'flop'"),
        ("search.objective={minimize: flops}", "search.objective: one must be of the trained model"),
        ("search.objective=[{maximize: top1}, {minimize: top1}]", "search.objective: objectives must differ"),
        ("search.stop={patience: 0}", "search.stop.patience"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(SpecError) as error:
        load_search(CONV3X3, [change])
    assert message in str(error.value)


def test_draws_are_of_holes_that_there_are():
    with pytest.raises(SpecError, match=r"did you mean 'train\.lr'"):
        load_search(CONV3X3, [ROBUST[0], "search.draws={over: [train.lrr]}"])


@pytest.mark.parametrize(
    "second", ["search.draws={over: [train.lr]}", "search.objective=[{maximize: top1}, {minimize: flops}]"]
)
def test_what_early_stopping_cannot_judge_is_refused(second):
    with pytest.raises(SpecError, match=r"search\.fidelity"):
        load_search(CONV3X3, [ROBUST[0], "search.fidelity={kind: median}", second])


def test_a_hole_for_the_epochs_cannot_be_halved():
    with pytest.raises(SpecError, match=r"train\.epochs"):
        load_search(CONV3X3, ["train.epochs={choice: [5, 9]}", "search.fidelity={kind: halving}"])


# Ending early.


def test_patience_ends_a_search_that_gets_no_better(tmp_path):
    records, proposer, progress, *_ = search(
        tmp_path, "search.trials=150", "search.stop={patience: 10}", "search.concurrency=2"
    )
    assert "patience" in progress.stopped
    values = [values[0] for _, values in proposer.told]
    assert max(values[:-10]) >= max(values[-10:])
    assert len(records) < 150


def test_max_trials_is_never_surpassed(tmp_path):
    records, *_, progress, _, _ = search(
        tmp_path, "search.trials=20", "search.seeds=[0, 1, 2]", "search.stop={max_trials: 10}"
    )
    assert len(records) == 9
    assert "9 of 10 trials" in progress.stopped


def test_max_hours_ends_a_search(tmp_path):
    clock = iter(np.arange(0, 10, 0.1))
    records, _, progress, *_ = search(
        tmp_path, "search.trials=50", "search.stop={max_hours: 1.05}", hours=lambda: next(clock)
    )
    assert len(records) == 11
    assert "max_hours" in progress.stopped


def test_a_bracket_that_is_cut_short_is_finished(tmp_path):
    records, _, progress, *_ = search(
        tmp_path, "search.trials=27", "search.fidelity={kind: halving, eta: 3}", "search.stop={max_trials: 12}"
    )
    assert len(progress.proposals) == 12
    assert sum(r.until is None for r in records) == 2  # the best of the first bracket and of the three behind it
