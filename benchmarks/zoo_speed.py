"""How long it takes to build and cost every stem of the zoo, and what fusing saves.

Run: python benchmarks/zoo_speed.py
"""

import time

from stemlab import fuse, zoo
from stemlab.builders import Stem

FUSED = ("vit_c_4gf", "scaled_relu_deit_s", "levit_384", "xcit_small12_p16", "fastvit_t8_train")


def build(entry: zoo.ZooEntry) -> Stem:
    return Stem(entry.stem, img_size=entry.image_size, in_chans=entry.in_channels, embed_dim=entry.dim)


if __name__ == "__main__":
    began = time.perf_counter()
    for name in zoo.names():
        entry = zoo.get(name)
        assert sum(parameter.numel() for parameter in build(entry).parameters()) == entry.trace().counts.params
    print(f"building and costing {len(zoo.names())} stems: {time.perf_counter() - began:.1f} s")
    for name in FUSED:
        print(f"{name}: {fuse(build(zoo.get(name)).eval()).saving}")
