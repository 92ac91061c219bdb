"""What the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).parents[1]
CONV3X3 = REPOSITORY / "search_spaces" / "conv3x3.yaml"

# Building a model takes longer than hypothesis' default deadline; a slow example is not a failure here.
settings.register_profile("stemlab", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile("stemlab")


if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # there are as many processes as cores


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """What is made once on a machine is made once a run of the tests, and nothing is left in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEMLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cli(tmp_path):
    """Run the installed command line in a fresh folder; give the finished process (text streams)."""

    def run(*arguments, timeout=300, cwd=tmp_path, env=None):
        return subprocess.run(
            [str(Path(sys.executable).with_name("stemlab")), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )

    return run
