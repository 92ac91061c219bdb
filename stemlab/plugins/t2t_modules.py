"""The torch modules of the T2T plug-in."""

from __future__ import annotations

import torch
from einops import rearrange
from timm.layers import Mlp, trunc_normal_
from torch import nn
from torch.nn import functional as F


class SoftSplitModule(nn.Module):
    """Unfold that keeps the grid.

    Shape: (batch, c, height, width) -> (batch, c * kernel, height', width').
    """

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map of windows."""
        rows = (x.shape[-2] + 2 * self.padding - self.kernel[0]) // self.stride[0] + 1
        windows = F.unfold(x, self.kernel, padding=self.padding, stride=self.stride)
        return rearrange(windows, "b c (h w) -> b c h w", h=rows)

    def extra_repr(self) -> str:
        """Show the window."""
        return f"{self.kernel}, stride={self.stride}, padding={self.padding}"


class TokenTransformerModule(nn.Module):
    """Attention with one head, then an MLP, over the positions of a map; `width` channels come out.

    Shape: (batch, channels, height, width) -> (batch, width, height, width).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)
        for linear in self.modules():
            if isinstance(linear, nn.Linear):
                trunc_normal_(linear.weight, std=0.02)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the transformed map."""
        height, channels = x.shape[-2], x.shape[1]
        tokens: torch.Tensor = rearrange(x, "b c h w -> b (h w) c")
        q, k, v = rearrange(self.qkv(self.norm1(tokens)), "b n (three c) -> three b n c", three=3)
        # The published code scales by the width of the input, not of the head.
        tokens = v + self.proj(F.scaled_dot_product_attention(q, k, v, scale=channels**-0.5))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return rearrange(tokens, "b (h w) c -> b c h w", h=height)
