"""A model on its way through a recipe, and how well it does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F

from ..data.split import Batch, Part
from ..probes import Observer
from ..spec import TrainSpec, TrialSpec
from . import loss, recipe
from .compiling import compiled
from .ranks import ALONE, Ranks

JUDGED = 512
"""How many images are judged at a time, unless the memory holds fewer."""


class Run:
    """A model on its way: optimizer, schedule and the order of the images.

    An update sees `batch` images: one batch of the recipe's, or as many as it accumulates. A batch is taken `micro`
    images at a time, and its gradients are added up; all of it at once unless told. What a layer draws from torch's
    generator (dropout, say) and how the images are varied follow from the seed and the epoch.
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
        self.batch = update_size(spec, len(part))
        self.batches = -(-self.batch // spec.batch_size)  # of an update
        self.micro = micro or min(spec.batch_size, self.batch)
        self.steps = len(part) // self.batch
        self.forward = self._forward()
        self.optimizer = recipe.optimizer(model, spec)
        self.schedule = recipe.schedule(self.optimizer, spec, self.steps)
        warm = recipe.warmup(spec, self.steps)
        self.ema = None if spec.ema is None else ModelEmaV3(model, decay=spec.ema, update_after_step=warm)
        self.scaler = torch.amp.GradScaler(part.device.type) if spec.precision == "fp16" else None
        self.mix = loss.mixer(spec, classes=getattr(model, "num_classes", 0))
        self.order = torch.Generator().manual_seed(seed)
        self.epochs = self.updates = self.images = 0
        self.step = 0  # of the epoch under way; 0 between two
        self.total = torch.zeros((), device=part.device)
        self._order_before = self.order.get_state()

    @property
    def lr(self) -> float:
        """The learning rate of the next update, of what has no rate of its own."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"]) / float(group.get("lr_scale", 1.0))

    @property
    def judged(self) -> nn.Module:
        """The model that is judged and kept: the running mean of its weights where the recipe has one."""
        return self.model if self.ema is None else self.ema.module

    def epoch(self, after_step: Callable[[], None] | None = None) -> float:
        """Train one pass, the incomplete last batch left out, or what is left of it; return the mean loss.

        `after_step` is called behind each update; before the last one it may ask for the `state`.
        """
        chosen, seeds = self._draw()
        self.model.train()
        done = self.step * self.batches
        own = [self.ranks.share(batch) for batch in chosen[done:]]
        batches = zip(self.part.batches(own, seeds[done:]), seeds[done:], strict=True)
        with matmuls(self.spec):
            for _ in range(self.step, self.steps):
                self.total += self._update(islice(batches, self.batches))
                if self.step == self.steps:
                    self.step = 0
                if after_step is not None:
                    after_step()
            next(batches, None)  # the end, which whoever reads the images ahead waits for
        for model in (self.model, self.ema):
            if model is not None:
                self.ranks.agree(model)
        return float(self.total) / self.steps

    def _draw(self) -> tuple[tuple[torch.Tensor, ...], list[int]]:
        """Return the batches of an epoch, as places of images, and a seed for each."""
        if self.step == 0:
            self.epochs += 1
            self.total = torch.zeros_like(self.total)
        own = np.random.SeedSequence((self.seed, self.epochs, self.ranks.rank))
        first, *seeds = own.generate_state(1 + self.steps * self.batches, np.uint64).tolist()
        if self.step == 0:
            torch.manual_seed(first)
        self._order_before = self.order.get_state()
        order = torch.randperm(len(self.part), generator=self.order)
        if self.spec.augment is not None and self.spec.augment.repeats is not None:
            order = order.repeat_interleave(self.spec.augment.repeats)
        updates = order[: self.steps * self.batch].split(self.batch)
        return tuple(batch for update in updates for batch in update.split(self.spec.batch_size)), seeds

    def _update(self, batches: Iterable[tuple[Batch, int]]) -> torch.Tensor:
        """Change the weights once, by these batches; return the mean loss of their images."""
        self.optimizer.zero_grad(set_to_none=True)
        found = self.ranks.total(self._gradients(batches))
        self.ranks.add_gradients(self.model.parameters())
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        if self.observer:
            self.observer.before_step(found)
        if self.spec.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.clip_grad)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.updates += 1
        self.step += 1
        self.images += self.batch
        if self.ema is not None:
            self.ema.update(self.model, self.updates)
        if self.observer:
            self.observer.after_step()
        self.schedule.step_update(self.updates)
        return found

    def _gradients(self, batches: Iterable[tuple[Batch, int]]) -> torch.Tensor:
        """Add up the gradients of a mean loss, as far as it is this process's; return that part of the loss."""
        losses = []
        for (images, labels), seed in batches:
            if self.mix is not None:
                images, labels = loss.mixed(self.mix, images, labels, seed)
            for few, own in zip(images.split(self.micro), labels.split(self.micro), strict=True):
                if not len(few):  # a last batch of fewer images than processes
                    continue
                with autocast(self.spec, few):
                    found = loss.loss(self.spec, self.forward(laid_out(self.spec, few)), own)
                found = found * (len(few) / self.batch)
                (found if self.scaler is None else self.scaler.scale(found)).backward()
                losses.append(found.detach())
        return torch.stack(losses).sum()

    def _forward(self) -> Callable[[torch.Tensor], loss.Outputs]:
        """Prepare the model as the recipe says; return what makes its outputs in training."""
        model, tokens = self.model, self.spec.token_labels is not None
        if self.spec.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.spec.checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]

        def forward(images: torch.Tensor) -> loss.Outputs:
            return loss.outputs(model, images, tokens)

        return compiled(forward, self.part.device) if self.spec.compile else forward

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that the next step depends on: tensors by name, and a JSON document of the rest."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": value for name, value in self.ema.module.state_dict().items()}
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
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }

    def restore(self, tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        """Take up what `state` returned, of a run of the same trial."""
        self.model.load_state_dict(_below(tensors, "model."))
        if self.ema is not None:
            self.ema.module.load_state_dict(_below(tensors, "ema."))
        if self.scaler:
            self.scaler.load_state_dict(document["scaler"])
        optimizer: dict[str, Any] = {"state": {}, "param_groups": []}
        for place, values in document["optimizer"].items():
            own = _below(tensors, f"{place}.")
            kind, _, index = place.partition(".")
            if kind == "group":
                optimizer["param_groups"].append({**values, **own})
            else:
                optimizer["state"][int(index)] = {**values, **own}
        self.optimizer.load_state_dict(optimizer)
        for parameter, kept in self.optimizer.state.items():
            kept |= {name: _laid_out_as(parameter, value) for name, value in kept.items()}
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


def _laid_out_as(parameter: torch.Tensor, value: Any) -> Any:
    """Return what an optimizer keeps of a parameter in that one's order in memory, by which fused updates go."""
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _below(tensors: dict[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin like this, by the rest of their names."""
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


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
            logits = model(laid_out(spec, images)).float()
        right += float((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    sums = ranks.total(torch.tensor([right, loss], dtype=torch.float64, device=part.device))
    right, loss = sums.tolist()
    return right / len(part), loss / len(part)


def full_batch(trial: TrialSpec) -> int:
    """Return how many images a batch of a trial has: the recipe's, or all there are."""
    return min(trial.train.batch_size, trial.data.part_sizes[0])


def update_size(spec: TrainSpec, images: int) -> int:
    """Return how many images an update sees where there are so many: the batches that it accumulates, or all."""
    return min(spec.batch_size * (spec.accumulate or 1), images)


def laid_out(spec: TrainSpec, images: torch.Tensor) -> torch.Tensor:
    """Return images in the memory layout that the recipe has."""
    return images.contiguous(memory_format=torch.channels_last) if spec.channels_last else images


_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(spec: TrainSpec, tensor: torch.Tensor) -> Any:
    """Return the context in which a model computes in the recipe's precision."""
    if spec.precision in _HALVES:
        return torch.autocast(tensor.device.type, dtype=_HALVES[spec.precision])
    return matmuls(spec)


@contextlib.contextmanager
def matmuls(spec: TrainSpec) -> Iterator[None]:
    """Multiply matrices in TF32 inside, where the recipe says so and the device can; as before behind it."""
    if spec.precision != "tf32":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
