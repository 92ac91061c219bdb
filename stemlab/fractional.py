"""Regular fractional factorial designs (Box & Hunter 1961, Technometrics 3:311)."""

from __future__ import annotations

from itertools import combinations, product

Row = tuple[int, ...]


def fraction(factors: int, levels: int, resolution: int) -> list[Row]:
    """Return the rows of the smallest regular fraction found: the level (0, 1, ...) of each factor in each run.

    `levels` is a prime. The first row is all zeros. Any `resolution` - 1 factors take each combination of their
    levels equally often, so that no effect of fewer factors is mixed with a mean.
    """
    # Rows are the linear combinations of `size` basic columns over the field of `levels` elements. A fraction has the
    # resolution if any resolution - 1 of the factors' columns are linearly independent.
    for size in range(1, factors + 1):
        columns = _columns(factors, levels, size, resolution - 1)
        if columns is not None:
            break
    else:  # each factor on its own: all combinations
        columns = [tuple(int(i == j) for i in range(factors)) for j in range(factors)]
        size = factors
    return [
        tuple(sum(a * b for a, b in zip(run, column, strict=True)) % levels for column in columns)
        for run in product(range(levels), repeat=size)
    ]


def _columns(factors: int, levels: int, size: int, strength: int) -> list[Row] | None:
    """Return as many columns as factors, any `strength` of them independent; None where a search finds none."""
    # One of each set of multiples, those of odd weight first: with two levels they alone give resolution 4.
    usable = [v for v in product(range(levels), repeat=size) if any(v) and next(x for x in v if x) == 1]
    usable.sort(key=lambda v: (sum(map(bool, v)) != 1, sum(map(bool, v)) % 2 == 0, sum(map(bool, v)), v[::-1]))
    chosen: list[Row] = []
    spanned: set[Row] = set()
    for vector in usable:
        if vector in spanned:
            continue
        # What this vector and up to strength - 2 of the chosen span is lost to the vectors after it.
        others = [c for n in range(min(strength - 1, len(chosen) + 1)) for c in combinations(chosen, n)]
        spanned |= {combined for group in others for combined in _span((vector, *group), levels)}
        chosen.append(vector)
        if len(chosen) == factors:
            return chosen
    return None


def _span(vectors: tuple[Row, ...], levels: int) -> set[Row]:
    """Return all linear combinations of the vectors in which none has the weight zero."""
    found = set()
    for weights in product(range(1, levels), repeat=len(vectors)):
        columns = zip(*vectors, strict=True)
        found.add(tuple(sum(w * x for w, x in zip(weights, column, strict=True)) % levels for column in columns))
    return found
