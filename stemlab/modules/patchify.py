"""Patchify: the stem of the original ViT, as one linear layer on each patch."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F


class Patchify(nn.Module):
    """Cut a map into patches and project each; a strided convolution written as the matrix product it is.

    The weight has a convolution's shape (out, in, height, width), so weights of timm's PatchEmbed fit.

    Shape: (batch, in_channels, height, width) -> (batch, out_channels, height / patch, width / patch).
    """

    def __init__(self, in_channels: int, out_channels: int, patch: tuple[int, int], bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *patch))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal, std sqrt(1 / fan_in), zero bias, as in arXiv 2106.14881."""
        nn.init.trunc_normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the grid of projected patches."""
        ph, pw = self.weight.shape[2:]
        patches = rearrange(x, "b c (h ph) (w pw) -> b h w (c ph pw)", ph=ph, pw=pw)
        tokens = F.linear(patches, rearrange(self.weight, "d c ph pw -> d (c ph pw)"), self.bias)
        return rearrange(tokens, "b h w d -> b d h w")

    def extra_repr(self) -> str:
        """Show the widths and the patch."""
        out_channels, in_channels, ph, pw = self.weight.shape
        return f"{in_channels}, {out_channels}, patch=({ph}, {pw}), bias={self.bias is not None}"
