"""Every tuner behind the wrapper: feasible, new, reproducible, of any hole, of several objectives, and never fatal."""

from __future__ import annotations

import logging
import random
import sys

import pytest

from stemlab.engine.optuna_samplers import OptunaTuner
from stemlab.engine.proposer import TunerProposer
from stemlab.errors import EngineError, SpecError
from stemlab.running import load_search
from stemlab.spec.search import ONE_OBJECTIVE, OPTUNA_TUNERS, REFUSED_TUNERS, TUNERS

# Holes of every kind, choices inside choices, and some points that are infeasible (a patch of 5 does not fit).
NESTED = {
    "name": "nested",
    "model": {
        "stem": {
            "choice": [
                {"patch": {"choice": [4, 5, 8]}},
                {
                    "channels": [8, {"int": [12, 24]}],
                    "kernels": 3,
                    "strides": {"choice": [2, {"choice": [[4, 1], [2, 4], [1, 4]]}]},
                    "norm": {"choice": ["batch", "none"]},
                },
            ]
        },
        "body": {"dim": 24, "depth": {"int": [1, 3]}, "heads": 3},
    },
    "data": {"name": "digits"},
    "train": {"lr": {"log_uniform": [1e-4, 1e-1]}, "weight_decay": {"uniform": [0.0, 0.1]}},
}
TWO = "[{maximize: top1}, {minimize: flops}]"
SLOW = ("gp", "optuna_gp")  # each proposal takes a tenth of a second or more
LEARNING = sorted(set(TUNERS) - {"random", "grid", "optuna_qmc", *SLOW})
SEVERAL = sorted(set(TUNERS) - {*ONE_OBJECTIVE})


def marked(names):
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in sorted(names)]


def propose(name, objective="{maximize: top1}", salt="", number=10, fail=0.2, value=None):
    """Return the identities of a few proposals; what each comes to follows from its identity and the salt."""
    changes = [f"search.tuner={name}", f"search.objective={objective}", f"search.trials={number}"]
    candidates = load_search(NESTED, changes)
    proposer = TunerProposer(candidates)
    found = []
    for _ in range(number):
        candidate = proposer.propose()
        found.append(candidate.identity)
        draw = random.Random(salt + candidate.identity).random()
        size = len(candidates.study.search.objectives)
        values = value(draw) if value else (draw, candidate.matched.cost.flops)[:size]
        proposer.tell(candidate, None if draw < fail else values)
    assert proposer.tuner is not None
    assert len(set(found)) == number
    return found


@pytest.mark.parametrize("name", marked(TUNERS))
def test_every_tuner_proposes_over_every_kind_of_hole_and_the_same_again(name):
    assert propose(name) == propose(name)


@pytest.mark.parametrize("name", marked(SEVERAL))
def test_every_tuner_but_those_of_one_seeks_several_objectives(name):
    assert propose(name, TWO) == propose(name, TWO)


@pytest.mark.parametrize("name", LEARNING)
def test_tuners_that_learn_go_by_the_results(name):
    assert propose(name, number=30) != propose(name, number=30, salt="other")


@pytest.mark.parametrize("name", sorted({*LEARNING} - {*ONE_OBJECTIVE}))
def test_tuners_that_learn_go_by_the_results_of_several_objectives(name):
    assert propose(name, TWO, number=30) != propose(name, TWO, number=30, salt="other")


@pytest.mark.parametrize("name", ["tpe", "evolution", "random", "grid"])
def test_objectives_that_agree_are_one(name):
    one = propose(name, number=25, fail=0)
    both = propose(name, "[{maximize: top1}, {minimize: loss}]", number=25, fail=0, value=lambda v: (v, -3 * v))
    assert one == both


def test_one_objective_only():
    for name in ONE_OBJECTIVE:
        with pytest.raises(SpecError, match=f"{name} seeks one objective, not 2"):
            load_search(NESTED, [f"search.tuner={name}", f"search.objective={TWO}"])


@pytest.mark.parametrize("name", sorted(REFUSED_TUNERS))
def test_a_tuner_that_does_not_run_says_why_and_what_to_use(name):
    with pytest.raises(SpecError, match=r"does not run here: .*; .*expected one of tpe, random"):
        load_search(NESTED, [f"search.tuner={name}"])


@pytest.mark.parametrize("at", ["ask", "tell", "withdraw"])
def test_a_tuner_that_raises_is_dismissed_and_the_search_goes_on(at, caplog):
    class Raising(OptunaTuner):
        """Optuna's TPE until it is called for the third time."""

        calls = 0

    def third_time(self, *given):
        Raising.calls += 1
        if Raising.calls == 3:
            raise KeyError("lost")
        return getattr(OptunaTuner, at)(self, *given)

    setattr(Raising, at, third_time)
    candidates = load_search(NESTED, ["search.tuner=optuna_tpe"])
    proposer = TunerProposer(candidates)
    proposer.tuner = Raising(candidates.study.search, candidates.holes)
    with caplog.at_level(logging.WARNING, "stemlab"):
        found = []
        for number in range(30):
            found.append(proposer.propose())
            proposer.tell(found[-1], (float(number),))
    assert proposer.tuner is None
    assert len({candidate.identity for candidate in found}) == 30
    assert (
        caplog.messages.count(
            "the tuner optuna_tpe failed on "
            + {"ask": "a proposal", "tell": "a result", "withdraw": "a withdrawn proposal"}[at]
            + " (KeyError: 'lost'); going on with random draws"
        )
        == 1
    )


@pytest.mark.parametrize("name", sorted(OPTUNA_TUNERS))
def test_without_optuna_its_tuners_name_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(EngineError, match=rf"the tuner {name} needs optuna: pip install 'stemlab\[optuna\]'"):
        TunerProposer(load_search(NESTED, [f"search.tuner={name}"]))


def test_optuna_is_silent(capfd):
    propose("optuna_tpe")
    propose("optuna_cmaes")
    assert capfd.readouterr() == ("", "")
