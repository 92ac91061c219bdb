"""How a stem's weights begin: the papers' rules where they speak, He's elsewhere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Behind = Literal["norm", "act", "other", "nothing"]
"""What takes a convolution's output: a norm, an activation, another layer, or nothing, at the stem's end."""


@torch.no_grad()
def init_convs(module: nn.Module, behind: Behind) -> None:
    """Initialise the convolutions of a module whose output goes to what `behind` says.

    - 1x1 at the end (the projection): normal, std sqrt(1 / out_channels), zero bias (pycls, arXiv 2106.14881).
    - A norm behind it: normal, std sqrt(2 / out_channels), not divided by the kernel's size (pycls); the norm takes
      the scale away again.
    - Otherwise nothing tames that scale, so fan-in: std sqrt(2 / fan_in) before an activation (arXiv 1502.01852),
      sqrt(1 / fan_in) where the output stays linear.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.weight, std=_variance(conv, behind) ** 0.5)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


def _variance(conv: nn.Conv2d, behind: Behind) -> float:
    if behind == "nothing" and conv.kernel_size == (1, 1):
        return 1 / conv.out_channels
    if behind == "norm":
        return 2 / conv.out_channels
    return (2 if behind == "act" else 1) / conv.weight[0].numel()
