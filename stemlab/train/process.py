"""How a process is set up that trains."""

from __future__ import annotations

import os

import torch


def settle() -> None:
    """Keep to as many CPU threads as the environment says, and on a GPU to kernels that give the same numbers again."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if torch.cuda.is_available():
        # A kernel that cannot do so warns in the log.
        torch.use_deterministic_algorithms(True, warn_only=True)
