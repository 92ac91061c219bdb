"""The weights of several models as one matrix, a row each, and the optimizer that goes along every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..spec import TrainSpec
from . import recipe


class Stack:
    """Weights (members, numbers) and their gradients, and an optimizer with hyper-parameters of its own for each row.

    `named` are views of the weights, parameter by parameter, each (members, *shape). What timm's optimizer treats
    alike stands side by side, so that it sees a row as two tensors, however many layers there are.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], model: nn.Module, specs: Sequence[TrainSpec]) -> None:
        """Stack parameters (members, *shape) of copies of a model."""
        # Without a decay timm makes no difference between weights and biases.
        made = recipe.optimizer(model, specs[0].replace(weight_decay=1.0))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        layout = [[names[id(parameter)] for parameter in group["params"]] for group in made.param_groups]
        self._shapes = {name: parameters[name].shape[1:] for group in layout for name in group}
        self._parts = [sum(self._shapes[name].numel() for name in group) for group in layout]
        self._specs = list(specs)
        self._kind: Any = type(made)
        self._options = [{k: v for k, v in group.items() if k != "params"} for group in made.param_groups]
        self._set(torch.cat([parameters[name].detach().flatten(1) for name in self._shapes], dim=1))

    def _set(self, values: torch.Tensor) -> None:
        self._gradients = torch.zeros_like(values)
        sizes = [shape.numel() for shape in self._shapes.values()]
        self.named = {
            name: value.view(len(values), *shape).requires_grad_()
            for (name, shape), value in zip(self._shapes.items(), values.split(sizes, dim=1), strict=True)
        }
        self._values = values
        self._rows = [self._row(member) for member in range(len(values))]
        self._optimizer: torch.optim.Optimizer = self._kind(
            [group for row in self._rows for group in row], lr=0.0, fused=True
        )

    def _row(self, member: int) -> list[dict[str, Any]]:
        """Return the groups of parameters of one member."""
        spec, groups = self._specs[member], []
        each = (matrix[member].split(self._parts) for matrix in (self._values, self._gradients))
        for options, value, gradient in zip(self._options, *each, strict=True):
            value.grad = gradient
            own = {"weight_decay": spec.weight_decay if options["weight_decay"] else 0.0}
            own |= {"momentum": spec.momentum} if "momentum" in options else {}
            groups.append({**options, **own, "params": [value]})
        return groups

    def differentiate(self, losses: torch.Tensor) -> None:
        """Take the gradients of the members' losses (members,), each by its own weights."""
        found = torch.autograd.grad(losses.sum(), list(self.named.values()))
        torch.cat([gradient.flatten(1) for gradient in found], dim=1, out=self._gradients)

    def clip(self, most: float) -> None:
        """Scale each member's gradients down to a norm of `most`."""
        norms = self._gradients.norm(dim=1, keepdim=True)
        self._gradients *= (most / (norms + 1e-6)).clamp(max=1.0)

    def step(self, rates: Sequence[float]) -> None:
        """Update all members, each at its learning rate."""
        groups = iter(self._optimizer.param_groups)
        for rate in rates:
            for _ in self._parts:
                next(groups)["lr"] = rate
        self._optimizer.step()

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these members alone."""
        state = self._optimizer.state
        states = [state[group["params"][0]] for member in members for group in self._rows[member]]
        self._specs = [self._specs[member] for member in members]
        self._set(self._values[list(members)])
        for group, known in zip(self._optimizer.param_groups, states, strict=True):
            self._optimizer.state[group["params"][0]] = known
