"""Exported files: read by their own runtimes, compared with the model, whole or not there at all."""

from __future__ import annotations

import builtins
import json
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import stemlab
from stemlab import SpecError, StemlabError
from stemlab.builders import export as package
from stemlab.builders.export import TOLERANCE, export

CONV = {"channels": [8, 16, 24], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"}
SMALL = {"stem": CONV, "body": {"dim": 24, "depth": 1, "heads": 3}, "image_size": [32, 48], "classes": 5}
