"""From specs to torch modules, by einops and timm."""

from .model import build_model, build_stem
from .stem import Stem

__all__ = ["Stem", "build_model", "build_stem"]
