"""A model on its way through a recipe, and how well it does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..data.split import Part
from ..probes import Observer
from ..spec import TrainSpec, TrialSpec
from . import recipe
from .ranks import ALONE, Ranks

JUDGED = 512
"""How many images are judged at a time, unless the memory holds fewer."""


class Run:
    """A model on its way: optimizer, schedule and the order of the images.

    A batch is taken `micro` images at a time, and its gradients are added up; all of it at once unless told. What a
    layer draws from torch's generator (dropout, say) and how the images are varied follow from the seed and the epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: TrainSpec,
        seed: int,
        part: Part,
        observer: Observer | None = None,
        micro: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.spec, self.seed, self.part = model, spec, seed, part
        self.observer, self.ranks = observer, ranks
        self.batch = min(spec.batch_size, len(part))
        self.micro = micro or self.batch
        self.steps = len(part) // self.batch
        self.optimizer = recipe.optimizer(model, spec)
        self.schedule = recipe.schedule(self.optimizer, spec, self.steps)
        self.order = torch.Generator().manual_seed(seed)
        self.epochs = self.updates = self.images = 0
        self.step = 0  # of the epoch under way; 0 between two
        self.total = torch.zeros((), device=part.device)
        self._order_before = self.order.get_state()

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    def epoch(self, after_step: Callable[[], None] | None = None) -> float:
        """Train one pass, the incomplete last batch left out, or what is left of it; return the mean loss.

        `after_step` is called behind each update; before the last one it may ask for the `state`.
        """
        chosen, seeds = self._draw()
        self.model.train()
        own = [self.ranks.share(batch) for batch in chosen[self.step :]]
        for images, labels in self.part.batches(own, seeds[self.step :]):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.ranks.total(self._gradients(images, labels))
            self.ranks.add_gradients(self.model.parameters())
            if self.observer:
                self.observer.before_step(loss)
            if self.spec.clip_grad is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.clip_grad)
            self.optimizer.step()
            if self.observer:
                self.observer.after_step()
            self.updates += 1
            self.step += 1
            self.images += self.batch
            self.schedule.step_update(self.updates)
            self.total += loss
            if self.step == self.steps:
                self.step = 0
            if after_step is not None:
                after_step()
        self.ranks.agree(self.model)
        return float(self.total) / self.steps

    def _draw(self) -> tuple[tuple[torch.Tensor, ...], list[int]]:
        """Return the batches of an epoch, as places of images, and a seed for each."""
        if self.step == 0:
            self.epochs += 1
            self.total = torch.zeros_like(self.total)
        own = np.random.SeedSequence((self.seed, self.epochs, self.ranks.rank))
        first, *seeds = own.generate_state(1 + self.steps, np.uint64).tolist()
        if self.step == 0:
            torch.manual_seed(first)
        self._order_before = self.order.get_state()
        order = torch.randperm(len(self.part), generator=self.order)
        return order[: self.steps * self.batch].split(self.batch), seeds

    def _gradients(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Add up the gradients of a batch's mean loss, as far as it is this process's; return that part of the loss."""
        losses = []
        for few, own in zip(images.split(self.micro), labels.split(self.micro), strict=True):
            with autocast(self.spec, few):
                logits = self.model(few)
                loss = F.cross_entropy(logits.float(), own, label_smoothing=self.spec.label_smoothing)
            loss = loss * (len(few) / self.batch)
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that the next step depends on: tensors by name, and a JSON document of the rest."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        optimizer = self.optimizer.state_dict()
        numbers: dict[str, dict[str, Any]] = {}
        for place, values in _places(optimizer):
            numbers[place] = {name: value for name, value in values.items() if not isinstance(value, torch.Tensor)}
            tensors |= {f"{place}.{name}": value for name, value in values.items() if name not in numbers[place]}
        if self.step:
            tensors |= {"order": self._order_before, "total": self.total, **_generators(self.part.device)}
        else:
            tensors["order"] = self.order.get_state()
        return tensors, {
            "optimizer": numbers,
            "epochs": self.epochs,
            "step": self.step,
            "updates": self.updates,
            "images": self.images,
            "observer": self.observer.state() if self.observer else None,
        }

    def restore(self, tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        """Take up what `state` returned, of a run of the same trial."""
        self.model.load_state_dict(
            {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        )
        optimizer: dict[str, Any] = {"state": {}, "param_groups": []}
        for place, values in document["optimizer"].items():
            own = {name.removeprefix(f"{place}."): v for name, v in tensors.items() if name.startswith(f"{place}.")}
            kind, _, index = place.partition(".")
            if kind == "group":
                optimizer["param_groups"].append({**values, **own})
            else:
                optimizer["state"][int(index)] = {**values, **own}
        self.optimizer.load_state_dict(optimizer)
        self.order.set_state(tensors["order"])
        for name in ("epochs", "step", "updates", "images"):
            setattr(self, name, document[name])
        if self.step:
            self.total = tensors["total"].to(self.part.device)
            torch.set_rng_state(tensors["generator.cpu"])
            if "generator.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["generator.cuda"], self.part.device)
        if self.observer:
            self.observer.restore(document["observer"])


def _generators(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of torch's own generators, as far as a model on this device draws from them."""
    states = {"generator.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["generator.cuda"] = torch.cuda.get_rng_state(device)
    return states


def _places(optimizer: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what an optimizer knows of each group of parameters, in their order, and of each parameter."""
    for index, group in enumerate(optimizer["param_groups"]):
        yield f"group.{index}", group
    for index, state in optimizer["state"].items():
        yield f"state.{index}", state


@torch.inference_mode()
def evaluate(
    model: nn.Module, part: Part, spec: TrainSpec, batch: int = JUDGED, ranks: Ranks = ALONE
) -> tuple[float, float]:
    """Return top-1 accuracy (0..1) and mean cross-entropy of a model on a part of the data."""
    model.eval()
    right = loss = 0.0
    for images, labels in part.batches(ranks.share(torch.arange(len(part))).split(batch)):
        with autocast(spec, images):
            logits = model(images).float()
        right += float((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    sums = ranks.total(torch.tensor([right, loss], dtype=torch.float64, device=part.device))
    right, loss = sums.tolist()
    return right / len(part), loss / len(part)


def full_batch(trial: TrialSpec) -> int:
    """Return how many images an update of a trial sees: the recipe's batch, or all there are."""
    return min(trial.train.batch_size, trial.data.part_sizes[0])


def autocast(spec: TrainSpec, tensor: torch.Tensor) -> Any:
    """Return the context in which a model computes in the recipe's precision."""
    if spec.precision == "bf16":
        return torch.autocast(tensor.device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
