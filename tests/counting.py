"""What the modules of a network give, counted while it runs."""

from __future__ import annotations

import torch
from torch import nn

from stemlab.modules.patchify import Patchify


def outputs(model: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """Elements of the outputs of convolutions and linear layers, and of the biased ones among them."""
    elements = biased = 0

    def count(module, _, output):
        nonlocal elements, biased
        elements += output.numel()
        biased += output.numel() if module.bias is not None else 0

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, Patchify)):
            module.register_forward_hook(count)
    model(x)
    return elements, biased
