"""The layers a stem is made of. Each op has a file: its fields, shape rule, cost rule and builder, side by side."""

from .act import ACT_SCHEMA, ActLayer, parse_act
from .base import Channels, Counts, ExpandedIndex, LayerSpec, Shape, ShapeError, channels_on, linear_counts, show_size
from .conv import ConvLayer, Order, Standardize
from .norm import NORM_SCHEMA, NormLayer, parse_norm
from .pad import PadLayer
from .padding import PADDING_SCHEMA, Padding, parse_padding
from .parallel import ParallelLayer, flat
from .patchify import PatchifyLayer
from .pool import PoolLayer
from .registry import ParsedLayer, parse_layer, register_layer
from .space_to_depth import SpaceToDepthLayer
from .trace import Step, Trace, follow, init, window_of

for _layer in (ConvLayer, NormLayer, ActLayer, PoolLayer, PatchifyLayer, ParallelLayer, SpaceToDepthLayer, PadLayer):
    register_layer(_layer)

__all__ = [
    "ACT_SCHEMA",
    "NORM_SCHEMA",
    "PADDING_SCHEMA",
    "ActLayer",
    "Channels",
    "ConvLayer",
    "Counts",
    "ExpandedIndex",
    "LayerSpec",
    "NormLayer",
    "Order",
    "PadLayer",
    "Padding",
    "ParallelLayer",
    "ParsedLayer",
    "PatchifyLayer",
    "PoolLayer",
    "Shape",
    "ShapeError",
    "SpaceToDepthLayer",
    "Standardize",
    "Step",
    "Trace",
    "channels_on",
    "flat",
    "follow",
    "init",
    "linear_counts",
    "parse_act",
    "parse_layer",
    "parse_norm",
    "parse_padding",
    "register_layer",
    "show_size",
    "window_of",
]
