"""The plan of an ablation: its design, and the checked and matched model of every cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .analysis import claims
from .analysis.cells import measures
from .candidate import Candidate, Candidates
from .design import Arm, Design
from .errors import InfeasibleError
from .spec import AblationSpec
from .spec.files import Document


@dataclass(frozen=True)
class Plan:
    """What an ablation is going to train."""

    design: Design
    candidates: Candidates[AblationSpec]

    @classmethod
    def of(cls, study: AblationSpec, document: Document) -> Plan:
        """Return the plan of a study file; SpecError with file:line for what cannot be right."""
        candidates = Candidates(study, study.ablate.seeds, document)
        design = Design.of(study.ablate, candidates.document)
        try:
            claims.check(study.claims, design.levels, measures(study.probes), design.arm_levels())
        except InfeasibleError as error:
            raise document.error(("claims", *error.path), str(error)) from None
        return cls(design, candidates)

    @property
    def study(self) -> AblationSpec:
        """The study file, resolved."""
        return self.candidates.study

    @cached_property
    def cells(self) -> tuple[Candidate, ...]:
        """The candidates of `design.cells`; InfeasibleError, with file:line, names the first arm that cannot be had."""
        return tuple(self._cell(arm, draw) for arm, draw in self.design.cells)

    @property
    def arms(self) -> tuple[Candidate, ...]:
        """One candidate an arm: that of the first draw."""
        return tuple(self._cell(arm, 0) for arm in self.design.arms)

    @property
    def total(self) -> int:
        """How many trials there are: arms x draws x seeds."""
        return len(self.design.cells) * len(self.study.ablate.seeds)

    def _cell(self, arm: Arm, draw: int) -> Candidate:
        try:
            return self.candidates.make(self.design.point(arm, draw))
        except InfeasibleError as error:
            raise self.candidates.document.infeasible(
                error.path, f"the arm “{arm.label}” cannot be had: {error}"
            ) from None
