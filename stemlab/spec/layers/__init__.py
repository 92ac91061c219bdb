"""The layers a stem is made of. Each op has a file: its fields, its shape rule and its cost rule, side by side."""

from typing import Annotated

from pydantic import Field

from .act import ACT_SCHEMA, ActLayer, parse_act
from .base import Channels, Counts, ExpandedIndex, LayerSpec, Shape, ShapeError, show_size
from .conv import ConvLayer, Order
from .norm import NORM_SCHEMA, NormLayer, parse_norm
from .patchify import PatchifyLayer
from .pool import PoolLayer

AnyLayer = ConvLayer | NormLayer | ActLayer | PoolLayer | PatchifyLayer

Layer = Annotated[AnyLayer, Field(discriminator="op")]
"""Any layer; `op` says which."""

__all__ = [
    "ACT_SCHEMA",
    "NORM_SCHEMA",
    "ActLayer",
    "AnyLayer",
    "Channels",
    "ConvLayer",
    "Counts",
    "ExpandedIndex",
    "Layer",
    "LayerSpec",
    "NormLayer",
    "Order",
    "PatchifyLayer",
    "PoolLayer",
    "Shape",
    "ShapeError",
    "parse_act",
    "parse_norm",
    "show_size",
]
