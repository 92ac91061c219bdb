"""Findings: all that the report of an ablation says, as numbers, worked out once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..design import Design
from ..records import TrialRecord
from ..spec import AblationSpec
from .cells import curves, results
from .costs import costs
from .measured import learning, scalar_probes, scalars, token_similarity
from .ranking import latest
from .result import Result

GRADIENTS = ("stem_grad_max", "body_grad_max")
"""Columns of a curve that the gradient probes add: the largest norm of an epoch's steps."""


@dataclass(frozen=True)
class Findings:
    """What an ablation shows. What there is nothing to say about (no trial yet, nothing drawn, no claim) is None.

    `frame` has one row a trial, `curves` one an epoch of a trial; `missing` says why an analysis is not there.
    """

    study: AblationSpec
    design: Design
    frame: Any
    curves: Any
    learning: Result | None
    costs: Result | None
    probes: Result | None
    tokens: Result | None
    gradients: dict[str, Result]


def gather(study: AblationSpec, design: Design, records: Iterable[TrialRecord]) -> Findings:
    """Return the findings of a study, finished or not."""
    trials = latest(records)
    outcome = study.ablate.outcome
    frame, epochs = results(design, outcome, trials), curves(design, trials)
    some = len(frame) > 0
    column = outcome.removeprefix("test_")
    return Findings(
        study=study,
        design=design,
        frame=frame,
        curves=epochs,
        learning=learning(frame, epochs, column) if some and column in epochs else None,
        costs=costs(frame) if some else None,
        probes=scalars(frame, scalar_probes(trials), study.ablate.confidence) if some else None,
        tokens=token_similarity(design, trials),
        gradients={name: learning(frame, epochs, name) for name in GRADIENTS if name in epochs},
    )
