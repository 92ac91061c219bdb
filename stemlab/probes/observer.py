"""Observer: the probes of one trial, called by its loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..spec import TrialSpec
from . import attention, cka, hessian, tokens
from .gradients import GradientNorms
from .layers import Unmeasurable
from .spikes import LossSpikes
from .steps import StepProbe
from .updates import UpdateRatios

if TYPE_CHECKING:
    from ..data.split import Part, Splits


class Observer:
    """What a trial's probes see: each step and epoch of the training, and the trained model.

    It changes nothing of the run: no weight, no buffer, no random stream.
    """

    def __init__(self, trial: TrialSpec, model: nn.Module, data: Splits) -> None:
        if trial.probes is None:
            raise ValueError("the trial has no probes")
        self.trial, self.model, self.data, self.probes = trial, model, data, trial.probes
        self.steps: list[StepProbe] = []
        if self.probes.gradients:
            self.steps.append(GradientNorms(model))
        if self.probes.updates:
            self.steps.append(UpdateRatios(model))
        if self.probes.spikes:
            self.steps.append(LossSpikes(trial.model.classes))

    def before_step(self, loss: torch.Tensor) -> None:
        """See a step's loss and gradients, before they are clipped."""
        for probe in self.steps:
            probe.before_step(loss)

    def after_step(self) -> None:
        """See the weights behind a step."""
        for probe in self.steps:
            probe.after_step()

    def end_epoch(self) -> dict[str, float | None]:
        """Return the columns that the probes add to the curve."""
        return {name: value for probe in self.steps for name, value in probe.columns().items()}

    def state(self) -> list[dict[str, Any]]:
        """Return, between two epochs, what `restore` needs to go on: a JSON document."""
        return [probe.state() for probe in self.steps]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Take up what `state` returned, of an observer of the same trial."""
        for probe, kept in zip(self.steps, state, strict=True):
            probe.restore(kept)

    def finish(self, failure: str | None) -> dict[str, Any]:
        """Measure the trained model; return what all probes found. A model that has diverged is not measured."""
        found = {name: value for probe in self.steps for name, value in probe.summary().items()}
        for name, measure in self._of_the_model().items():
            try:
                if failure:
                    raise Unmeasurable(failure)
                found |= measure()
            except Unmeasurable as error:
                found[name] = {"skipped": str(error)}
            except Exception as error:  # whatever a model of somebody else's does, its training shall not be lost
                text = (str(error).strip() or "no message").splitlines()[0]
                found[name] = {"skipped": f"{type(error).__name__}: {text}"}
        return found

    def _of_the_model(self) -> dict[str, Callable[[], dict[str, Any]]]:
        probes, model, train = self.probes, self.model, self.trial.train
        images = self._some(self.data.validation, probes.images)[0]
        measures: dict[str, Callable[[], dict[str, Any]]] = {}
        if probes.tokens:
            measures["tokens"] = lambda: tokens.measure(model, images)
        if probes.attention:
            measures["attention"] = lambda: attention.measure(model, images)
        if probes.cka is not None:
            compared = images[: probes.cka.images]
            measures["cka"] = lambda: cka.measure(model, compared)
        if probes.hessian:
            batch = self._some(self.data.train, train.batch_size)
            measures["hessian"] = lambda: hessian.measure(model, *batch, train.label_smoothing)
        return measures

    def _some(self, part: Part, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and labels that are the same in all trials on the same split; fewer are the first of more."""
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(self.trial.data.split_seed))
        return next(part.batches([order[:count]]))
