"""Screens: what the scores of untrained models are, and the order in which they let candidates be tried."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import CONV3X3
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from stemlab.engine.proposer import TunerProposer
from stemlab.engine.screening import Screened
from stemlab.errors import SpecError
from stemlab.running import load_search
from stemlab.spec import TrialSpec
from stemlab.spec.search import Screen, ScreenSpec
from stemlab.train import screens

NAMES = list(screens.SCREENS)


def trial(stem=None, seed=0, size=16, train=None, **body) -> TrialSpec:
    stem = stem or {"channels": [8, 16], "norm": "batch", "act": "relu", "strides": 2}
    return TrialSpec(
        model={
            "stem": stem,
            "body": {"dim": 32, "depth": 1, "heads": 2, "mlp_ratio": 2, **body},
            "image_size": size,
            "classes": 10,
        },
        data={"name": "digits", "image_size": size},
        train=train or {},
        seed=seed,
    )


def test_every_screen_of_a_study_file_has_its_score():
    assert set(NAMES) == set(Screen.__args__)


@pytest.mark.parametrize("by", NAMES)
def test_a_score_is_the_same_again_whatever_else_is_going_on(by):
    first = screens.score(trial(), by)
    assert math.isfinite(first)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.manual_seed(5)
    torch.set_num_threads(2)
    try:
        before = torch.get_rng_state()
        assert screens.score(trial(train={"lr": 0.1, "epochs": 2, "batch_size": 7}), by) == first
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    assert screens.score(trial(seed=1), by) != first


@pytest.mark.parametrize(
    ("stem", "body"),
    [
        ({"patch": 4}, {}),
        ({"channels": [8, 16], "act": "relu"}, {"norm": "rms", "mlp": "swiglu", "qk_norm": True}),
        ({"patch": 4}, {"rope": {"kind": "axial"}, "pos_embed": "none"}),
        ({"channels": [8, 16], "norm": "group", "act": "scaled_relu"}, {"pool": "map"}),
        ({"channels": [8, 16], "norm": "rms", "act": {"kind": "silu", "gain": 1.5}}, {"distilled": True}),
        ({"channels": [8, 16], "norm": "instance", "act": "quick_gelu"}, {"pre_norm": True, "fc_norm": True}),
        ({"channels": [8, 16], "norm": "none", "act": "prelu"}, {"post_norm": True, "layer_scale": 0.1}),
    ],
    ids=str,
)
def test_stems_and_bodies_of_all_kinds_have_scores(stem, body):
    if stem.get("norm") == "group":
        stem = {**stem, "norm": {"kind": "group", "groups": 4}}
    assert all(math.isfinite(screens.score(trial(stem, **body), by)) for by in NAMES)


def test_gates_that_are_all_open_tell_no_images_apart():
    assert screens.score(trial({"patch": 4}, mlp="swiglu"), "naswot") is None
    assert screens.score(trial({"patch": 4}, mlp="mlp"), "naswot") is not None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_score(monkeypatch, value):
    monkeypatch.setitem(screens.SCREENS, "snip", lambda *_: value)
    assert screens.score(trial(), "snip") is None


def test_an_unknown_screen_is_refused():
    with pytest.raises(SpecError, match=r"unknown screen 'synflaw'.*did you mean 'synflow'"):
        screens.score(trial(), "synflaw")


# Each score, against its definition.


def images(n=6, channels=2, size=4, seed=0):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def chain(*norms) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, bias=False), *norms, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3, bias=False)]
    return nn.Sequential(*layers)


def test_synflow_of_a_chain_is_its_flow_once_a_layer():
    """What flows in is conserved (arXiv 2006.05467, theorem 1): each layer's saliencies sum to the output."""
    model = chain()
    conv, linear = model[0].weight.detach().abs(), model[3].weight.detach().abs()
    flow = F.linear(F.conv2d(torch.ones(1, 2, 4, 4), conv).flatten(1), linear).sum()
    assert screens.synflow(model, images(), torch.zeros(6)) == pytest.approx(math.log(2 * float(flow)), rel=1e-6)


def test_synflow_sees_neither_norms_nor_data():
    stem = {"channels": [8, 16], "strides": 2, "act": "relu"}
    scores = {screens.score(trial({**stem, "norm": norm}), "synflow") for norm in ("batch", "layer")}
    assert len(scores) == 1
    assert screens.synflow(chain(), images(seed=1), None) == screens.synflow(chain(nn.BatchNorm2d(4)), images(), None)


def test_naswot_is_the_determinant_of_agreeing_units():
    model, batch = chain(), images()
    active = (model[:3](batch) > 0).numpy()
    agree = [[np.sum(a == b) for b in active] for a in active]
    expected = math.log(np.linalg.det(np.array(agree, dtype=float)))
    assert screens.naswot(model, batch, None) == pytest.approx(expected)


def test_naswot_of_images_that_look_alike_is_no_number():
    assert not math.isfinite(screens.naswot(chain(), images()[[0, 0, 1]], None))
    assert not math.isfinite(screens.naswot(nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), images(), None))


def test_jacob_cov_is_least_where_all_gradients_are_the_same():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    n, k = 6, 1e-5
    worst = -(math.log(n + k) + 1 / (n + k) + (n - 1) * (math.log(k) + 1 / k))
    # The eigenvalues of zero are so but for rounding, which 1 / k amplifies.
    assert screens.jacob_cov(linear, images(n), None) == pytest.approx(worst, rel=1e-3)
    assert screens.jacob_cov(chain(), images(n), None) > worst / 2


def test_the_gradients_are_those_of_the_loss():
    torch.manual_seed(0)
    batch, labels = images(), torch.tensor([0, 1, 2, 0, 1, 2])
    for by in ("snip", "grad_norm"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
        flat = batch.flatten(1)
        wrong = model(batch).detach().softmax(1) - F.one_hot(labels, 3)
        gradient = wrong.T @ flat / len(flat)  # of a softmax regression
        weight = model[1].weight.detach()
        expected = (weight * gradient).abs().sum() if by == "snip" else gradient.norm()
        assert screens.SCREENS[by](model, batch, labels) == pytest.approx(float(expected), rel=1e-5)


# The order of candidates.

CANDIDATES = load_search(CONV3X3).probe().feasible[:30]
IDENTITIES = [candidate.identity for candidate in CANDIDATES]


class Listed:
    """A proposer of a list, and what it was told."""

    def __init__(self, candidates):
        self.left, self.told, self.asked = iter(candidates), [], 0

    def propose(self):
        self.asked += 1
        return next(self.left, None)

    def tell(self, candidate, values):
        self.told.append((candidate, values))


SCORES = st.lists(st.one_of(st.none(), st.integers(-3, 3).map(float)), min_size=1, max_size=30)


def screened(scores, pool, **more):
    given = dict(zip(IDENTITIES, scores, strict=False))
    inner = Listed(CANDIDATES[: len(scores)])
    return inner, Screened(inner, ScreenSpec(by="naswot", pool=pool), lambda trial: given[trial.digest], **more)


@settings(max_examples=60)
@given(SCORES, st.integers(2, 9))
def test_the_best_of_the_pool_comes_next_and_none_is_lost(scores, pool):
    inner, proposer = screened(scores, pool)
    rank = {id(c): -math.inf if s is None else s for c, s in zip(CANDIDATES, scores, strict=False)}
    left, tried = CANDIDATES[: len(scores)], []
    for number in itertools.count():
        waiting = [c for c in left[: pool + number] if not any(c is other for other in tried)]
        got = proposer.propose()
        if not waiting:
            assert got is None
            break
        assert got is max(waiting, key=lambda c: rank[id(c)])  # the first of equals
        tried.append(got)
        assert set(map(id, proposer.waiting)) == {id(c) for c in waiting if c is not got}
        order = [rank[id(c)] for c in proposer.waiting]
        assert order == sorted(order, reverse=True)
    assert sorted(map(id, tried)) == sorted(map(id, left))
    assert proposer.propose() is None
    assert inner.asked == len(left) + 1


def test_what_waits_comes_in_the_order_that_is_shown():
    _, proposer = screened([1.0, None, 3.0, 3.0, -1.0], pool=5)
    proposer.propose()
    shown = proposer.waiting
    assert [proposer.propose() for _ in shown] == list(shown)


def test_results_are_handed_on():
    inner, proposer = screened([1.0, 2.0], pool=2)
    candidate = proposer.propose()
    proposer.tell(candidate, (0.5,))
    assert inner.told == [(candidate, (0.5,))]


def test_scores_on_record_are_not_worked_out_again():
    asked = []
    known = {c.identity: float(n) for n, c in enumerate(CANDIDATES[:4])}
    inner = Listed(CANDIDATES[:5])
    proposer = Screened(inner, ScreenSpec(by="naswot", pool=5), lambda trial: asked.append(trial.digest), known)
    assert proposer.propose() is CANDIDATES[3]
    assert [proposer.score_of(c) for c in CANDIDATES[:5]] == [0.0, 1.0, 2.0, 3.0, None]
    assert asked == [CANDIDATES[4].identity]


def test_a_search_retraces_its_steps():
    def run():
        candidates = load_search(CONV3X3, ["search.tuner=tpe"])
        proposer = Screened(TunerProposer(candidates), ScreenSpec(by="synflow", pool=4))
        steps = []
        for number in range(4):
            candidate = proposer.propose()
            steps.append((candidate.identity, proposer.score_of(candidate)))
            proposer.tell(candidate, (number / 10,))
        return steps, [c.identity for c in proposer.waiting]

    assert run() == run()
    steps, waiting = run()
    assert len({identity for identity, _ in steps} | set(waiting)) == 4 + 3
