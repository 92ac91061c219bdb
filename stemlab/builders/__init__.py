"""From specs to torch modules, by einops and timm."""

from .model import build_model, build_stem
from .patchify import Patchify
from .scaled_relu import ScaledReLU
from .stem import Stem

__all__ = ["Patchify", "ScaledReLU", "Stem", "build_model", "build_stem"]
