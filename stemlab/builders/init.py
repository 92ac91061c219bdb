"""How a stem's weights begin: the papers' rules where they speak, He's elsewhere."""

from __future__ import annotations

import torch
from torch import nn

from ..spec.layers import ActLayer, AnyLayer, NormLayer


@torch.no_grad()
def init_conv(conv: nn.Conv2d, behind: AnyLayer | None) -> None:
    """Initialise one convolution of a stem; `behind` is the layer that takes its output, None at the end.

    - 1x1 at the end (the projection): normal, std sqrt(1 / out_channels), zero bias (pycls, arXiv 2106.14881).
    - A norm behind it: normal, std sqrt(2 / out_channels), not divided by the kernel's size (pycls); the norm takes
      the scale away again.
    - Otherwise nothing tames that scale, so fan-in: std sqrt(2 / fan_in) before an activation (arXiv 1502.01852),
      sqrt(1 / fan_in) where the output stays linear.
    """
    fan_in = conv.weight[0].numel()
    if behind is None and conv.kernel_size == (1, 1):
        variance = 1 / conv.out_channels
    elif isinstance(behind, NormLayer):
        variance = 2 / conv.out_channels
    else:
        variance = (2 if isinstance(behind, ActLayer) else 1) / fan_in
    nn.init.normal_(conv.weight, std=variance**0.5)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
