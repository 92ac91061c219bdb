"""The processes that train one trial together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn


class Ranks:
    """One process of `count`, that of number `rank`; the only one, unless told otherwise.

    Every batch is shared out, and the gradients are added up before a step, so that all processes have the same
    weights at all times. Not by torch's DistributedDataParallel: that takes the mean over the processes, which is
    another thing where their shares of a batch differ.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """Return this process's part of a batch."""
        return batch[self.rank :: self.count] if self.count > 1 else batch

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool, device: str) -> bool:
        """Return whether any process says so, once all have said it."""
        return bool(flag if self.count == 1 else self.total(torch.tensor(float(flag), device=device)))

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each process the sum of the gradients of all."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, model: nn.Module) -> None:
        """Give each process the buffers of the first: the running statistics of batch norms differ between them."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


ALONE = Ranks()
