"""Work that ends its process, for runners that must outlive it."""

from __future__ import annotations

import os


def die(order, progress, keep=None):
    os._exit(3)
