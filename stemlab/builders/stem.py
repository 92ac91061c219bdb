"""Stem: the module of a StemSpec, which stands where timm's ViT has its patch embedding."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from einops import rearrange
from timm.layers import Format, PatchEmbed
from torch import nn
from torch.nn import functional as F

from ..drawing import diagram
from ..errors import SpecError
from ..spec import StemSpec
from ..spec.base import pair
from ..spec.layers import ShapeError, init

_LAYOUTS = {
    Format.NHWC: "b d h w -> b h w d",
    Format.NLC: "b d h w -> b (h w) d",
    Format.NCL: "b d h w -> b d (h w)",
}


class Stem(nn.Module):
    """The layers of a StemSpec with the attributes and methods of timm's PatchEmbed.

    Shape: (batch, in_chans, H, W) -> (batch, tokens, embed_dim); (batch, H', W', embed_dim) with `output_fmt="NHWC"`,
    as timm asks for when the image size is dynamic; (batch, embed_dim, H', W') with `flatten=False`.

    The arguments are PatchEmbed's. `patch_size` and `bias` are what timm's ViT hands down; the spec decides both.
    """

    def __init__(
        self,
        spec: StemSpec,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] | None = None,
        in_chans: int = 3,
        embed_dim: int = 768,
        flatten: bool = True,
        output_fmt: str | None = None,
        bias: bool = True,
        strict_img_size: bool = True,
        dynamic_img_pad: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.in_chans, self.embed_dim = in_chans, embed_dim
        self.patch_size = spec.stride
        self.output_fmt = Format(output_fmt) if output_fmt else (Format.NLC if flatten else Format.NCHW)
        self.flatten = flatten and output_fmt is None
        self.strict_img_size, self.dynamic_img_pad = strict_img_size, dynamic_img_pad
        self.img_size = pair(img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])
        self.layers = self._build(self._padded(*self.img_size))
        self.grid_size = self.dynamic_feat_size(self.img_size)
        if device is not None or dtype is not None:
            self.to(device=device, dtype=dtype)
        self.init_weights()

    @classmethod
    def in_place_of(cls, old: PatchEmbed | Stem, spec: StemSpec, embed_dim: int, img_size: tuple[int, int]) -> Self:
        """Return a stem that takes and gives what another patch embedding does, on its device, in its precision."""
        stem = cls(
            spec,
            img_size=img_size,
            in_chans=old.in_chans if isinstance(old, Stem) else old.proj.in_channels,
            embed_dim=embed_dim,
            flatten=old.flatten,
            output_fmt=None if old.flatten else old.output_fmt,
            strict_img_size=old.strict_img_size,
            dynamic_img_pad=old.dynamic_img_pad,
        )
        # Made in float32 on the CPU, so that a seed means the same weights wherever the old one is.
        like = next(old.parameters(), torch.empty(0))
        return stem.to(like.device, like.dtype).train(old.training)

    def _build(self, size: tuple[int, int]) -> nn.Sequential:
        misfit = self.spec.misfit(size, self.embed_dim, self.in_chans, divided=False)
        if misfit is not None:
            raise SpecError(f"{misfit} (embed_dim={self.embed_dim}, img_size={self.img_size})")
        return self.spec.trace(*size, self.embed_dim, self.in_chans).build()

    def init_weights(self) -> None:
        """Initialise the weights by each layer's rules, the papers' where they speak."""
        init(self.spec.layers, self.layers, behind="nothing")

    @property
    def num_patches(self) -> int:
        """The number of tokens at `img_size`."""
        return math.prod(self.grid_size)

    @property
    def first_conv(self) -> str | None:
        """The path of the weight that reads the image, where one does: a first layer that is a norm has none."""
        weights = [name for name, value in self.layers[0].named_parameters() if value.ndim == 4]
        if self.spec.layers[0].op not in ("conv", "patchify") or len(weights) != 1:
            return None
        return f"layers.{next(iter(self.layers._modules))}.{weights[0]}".removesuffix(".weight")

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Return the stride from pixels to tokens."""
        return max(self.patch_size) if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Return the grid of tokens for an image of (height, width) pixels."""
        height, width = self._padded(int(img_size[0]), int(img_size[1]))
        after = self.spec.trace(height, width, self.embed_dim, self.in_chans).end
        return (after.height, after.width)

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        if not self.dynamic_img_pad:
            return height, width
        sh, sw = self.patch_size
        return -(-height // sh) * sh, -(-width // sw) * sw

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Change the image size that the stem expects. The stride is the spec's: another patch_size is an error."""
        if patch_size is not None and pair(patch_size) != self.patch_size:
            raise SpecError(
                f"patch_size (={patch_size}): the stride of this stem is {self.patch_size}, set by its spec"
            )
        if img_size is not None:
            size = pair(img_size)
            try:
                self.grid_size = self.dynamic_feat_size(size)
            except ShapeError as error:
                raise SpecError(f"img_size (={img_size}): {error.args[0]}") from None
            self.img_size = size

    def _repr_svg_(self) -> str:
        """Return the picture that a notebook shows."""
        return diagram(self.spec.trace(*self.img_size, self.embed_dim, self.in_chans), "stem")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the tokens of a batch of images."""
        height, width = x.shape[-2:]
        sh, sw = self.patch_size
        if self.dynamic_img_pad:
            padded = self._padded(height, width)
            x = F.pad(x, (0, padded[1] - width, 0, padded[0] - height))
        elif self.strict_img_size:
            torch._assert(
                (height, width) == self.img_size,
                f"an image of {height}x{width} does not fit the model's {self.img_size[0]}x{self.img_size[1]}; "
                "use set_input_size, or build with dynamic_img_size=True",
            )
        else:
            torch._assert(
                height % sh == 0 and width % sw == 0,
                f"an image of {height}x{width} is not divisible by the stem's stride {sh}x{sw}",
            )
        x = self.layers(x)
        return x if self.output_fmt == Format.NCHW else rearrange(x, _LAYOUTS[self.output_fmt])
