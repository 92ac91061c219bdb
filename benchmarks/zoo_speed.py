"""How long the zoo takes: listing it on the command line, and building and costing every stem.

Run: python benchmarks/zoo_speed.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 7


def list_once() -> float:
    """Return the seconds of one `stemlab zoo --json`, the start of Python included."""
    began = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("stemlab"), "zoo", "--json"], check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - began


def build_all() -> tuple[int, float]:
    """Return how many stems were built and costed, and the seconds that took."""
    from stemlab import zoo
    from stemlab.builders import Stem

    began = time.perf_counter()
    for name in zoo.names():
        entry = zoo.get(name)
        trace = entry.trace()
        stem = Stem(entry.stem, img_size=entry.image_size, in_chans=entry.in_channels, embed_dim=entry.dim)
        assert sum(parameter.numel() for parameter in stem.parameters()) == trace.counts.params
    return len(zoo.names()), time.perf_counter() - began


if __name__ == "__main__":
    seconds = sorted(list_once() for _ in range(ROUNDS))
    print(f"stemlab zoo --json: median {statistics.median(seconds):.2f} s, slowest {seconds[-1]:.2f} s of {ROUNDS}")
    count, took = build_all()
    print(f"building and costing {count} stems: {took:.1f} s")
