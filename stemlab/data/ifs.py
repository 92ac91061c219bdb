"""Iterated function systems: a few affine maps that shrink the plane, and the fractal that they draw.

The fractal is the one set that is the union of its own images under the maps. So a point of it has an address: the map
whose image it lies in, the map within that one, and so on. Instead of one point at a time (the chaos game), points are
drawn by address, a first half of N that leads to a part of the fractal and a second half of the same N that leads to a
point in that part: N affine maps give N * N points. They weigh what the parts do that they stand for.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Whole = NDArray[np.intp]


class System(NamedTuple):
    """Affine maps (n, 2, 3), linear part and shift, and the part of the fractal that each makes up (n,)."""

    maps: Floats
    shares: Floats


def draw(random: np.random.Generator, count: int) -> System:
    """Return a system of `count` random maps.

    They are drawn by their singular values (arXiv 2110.03091), and scaled so that the areas of a square's images add up
    to 0.8 to 1.6 of its own: much below, fractals are dust, and much above, blots.
    """
    long = random.uniform(0.3, 1, count)
    values = np.stack([long, long * random.uniform(1 / count, 1, count) * random.choice((-1, 1), count)], 1)
    areas = np.abs(values.prod(1))
    values *= np.sqrt(random.uniform(0.8, 1.6) / areas.sum())
    before, behind = rotation(random.uniform(0, 2 * np.pi, (2, count)))
    shifts = random.uniform(-1, 1, (count, 2, 1))
    return System(np.concatenate([behind * values[:, None] @ before, shifts], 2), areas / areas.sum())


def rotation(angles: Floats) -> Floats:
    """Return the matrices (..., 2, 2) that turn the plane by angles (...) in radians."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos, -sin, sin, cos], -1).reshape(*angles.shape, 2, 2)


def stretch(maps: Floats) -> float:
    """Return by how much affine maps (..., 2, 3) lengthen what they lengthen most: below 1, all of them shrink."""
    return float(np.linalg.norm(maps[..., :2], 2, (-2, -1)).max())


class Addresses(NamedTuple):
    """Parts that together are the fractal: which maps lead to each (steps, N), the outermost first, and its share (N,).

    Where an address is shorter than others, the last numbers are n, which stand for no map.
    """

    steps: Whole
    shares: Floats


def addresses(shares: Floats, count: int) -> Addresses:
    """Return addresses of `count` parts or a few more, found by always dividing the largest."""
    parts: list[tuple[float, tuple[int, ...]]] = [(-1.0, ())]
    while len(parts) < count:
        negative, address = heapq.heappop(parts)
        for number, share in enumerate(shares):
            heapq.heappush(parts, (negative * share, (*address, number)))
    steps = np.full((max(len(address) for _, address in parts), len(parts)), len(shares))
    for column, (_, address) in enumerate(parts):
        steps[: len(address), column] = address
    return Addresses(steps, -np.array([negative for negative, _ in parts]))


def render(maps: Floats, parts: Addresses, size: tuple[int, int]) -> Iterator[Floats]:
    """Yield for each system of maps (B, n, 2, 3) how much of its fractal is in each pixel (H, W).

    The unit is one of the N * N points that are drawn. A fractal is stretched to fill the image from edge to edge.
    """
    nowhere = np.broadcast_to(np.eye(2, 3), (len(maps), 1, 2, 3))
    letters = np.moveaxis(np.concatenate([maps, nowhere], 1), 1, 3).astype(np.float32)
    words = letters[..., parts.steps[0]]
    for step in parts.steps[1:]:
        words = _behind(words, letters[..., step])
    # The point that a map leaves where it is belongs to the fractal, and so does all that the maps make of it.
    still = np.linalg.solve(np.eye(2) - maps[:, 0, :, :2], maps[:, 0, :, 2:]).astype(np.float32)
    points = words[:, :, 0] * still[:, :1] + words[:, :, 1] * still[:, 1:] + words[:, :, 2]
    counter = _Counter(parts.shares * len(parts.shares), size)
    for word, point in zip(words, points, strict=True):
        yield counter.counts(word, point)


def _behind(outer: Floats, inner: Floats) -> Floats:
    """Return the affine maps (B, 2, 3, N) that do what `inner` does and then what `outer` does."""
    both = outer[:, :, :1] * inner[:, None, 0] + outer[:, :, 1:2] * inner[:, None, 1]
    both[:, :, 2] += outer[:, :, 2]
    return both


class _Counter:
    """Counts the N * N points of one fractal after the other.

    Its arrays are used again: the system takes longer to hand out new ones than the arithmetic takes.
    """

    def __init__(self, weights: Floats, size: tuple[int, int]) -> None:
        self.weights, self.size, count = np.outer(weights, weights).ravel(), size, len(weights)
        self.place, self.term = np.empty((2, count, count), np.float32)
        self.row, self.column = np.empty((2, count, count), np.intp)

    def counts(self, words: Floats, points: Floats) -> Floats:
        """Return the weight in each pixel (H, W) of all points (2, N), each sent through all maps (2, 3, N)."""
        height, width = self.size
        self._locate(words[0], points, width, self.column)
        self._locate(words[1], points, height, self.row)
        self.row *= width
        self.row += self.column
        weights = np.bincount(self.row.ravel(), self.weights, height * width)
        return np.asarray(weights, np.float64).reshape(self.size)

    def _locate(self, words: Floats, points: Floats, pixels: int, found: Whole) -> None:
        """Find out on which of so many pixels all points are by one coordinate, of maps (3, N)."""
        # Not by a matrix product: BLAS would share one this small among threads, and wait longer than it computes.
        np.multiply(words[0][:, None], points[0], out=self.place)
        np.multiply(words[1][:, None], points[1], out=self.term)
        self.place += self.term
        self.place += words[2][:, None]
        self.place -= self.place.min()
        self.place *= np.float32(pixels * (1 - 1e-6)) / self.place.max()
        np.copyto(found, self.place, casting="unsafe")
