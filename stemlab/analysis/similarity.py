"""How alike the representations of two models are, from their records alone."""

from __future__ import annotations

import base64

import numpy as np
import pandas as pd

from ..errors import SpecError
from ..records import TrialRecord


def cka_between(record: TrialRecord, other: TrialRecord) -> pd.DataFrame:
    """Return the CKA between the layers of two trained models: rows are those of `record`, columns those of `other`.

    Linear CKA (arXiv 1905.00414) with the unbiased estimate of HSIC (arXiv 2010.15327) on the probe images, 1 where two
    layers place all images alike; slightly negative values are noise. NaN where a layer was not finite, or tells no
    two images apart. Widths and numbers of tokens may differ. SpecError where a trial was run without `probes: {cka:
    true}`, or the two have not seen the same images.
    """
    (rows, left), (columns, right) = (_grams(r) for r in (record, other))
    if _images(record) != _images(other):
        raise SpecError(
            f"trials {record.trial} and {other.trial} were measured on different images: {_images(record)} and "
            f"{_images(other)}; expected the same data, split and cka.images"
        )
    return pd.DataFrame(left @ right.T, rows, columns)


def _images(record: TrialRecord) -> dict[str, object]:
    """Return what the choice of the probe images depends on: not how large they are shown."""
    data = {name: value for name, value in record.data.items() if name != "image_size"}
    return {**data, "images": record.probes["cka"]["images"]}


def _grams(record: TrialRecord) -> tuple[list[str], np.ndarray]:
    """Return the names of the layers, and a row of unit length for each."""
    found = record.probes.get("cka", {"skipped": "it was run without probes: {cka: true}"})
    if "skipped" in found:
        raise SpecError(f"trial {record.trial} has no CKA: {found['skipped']}")
    pairs = found["images"] * (found["images"] - 1) // 2
    rows = [
        np.full(pairs, np.nan) if gram is None else np.frombuffer(base64.b64decode(gram), "<f2").astype(float)
        for gram in found["grams"]
    ]
    matrix = np.stack(rows)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return found["layers"], matrix / np.where(lengths > 0, lengths, np.nan)
