"""The stems of the arms as pictures: each distinct stem once, with the arms that have it."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from ...analysis.labels import stem_label
from ...candidate import Candidate
from ...drawing import diagram
from ...spec import Trace
from ..sections import Picture
from ..svg import shortened

MOST = 12
"""So many stems at most are drawn."""

_BROADEST = 1120.0


def stem_pictures(arms: Mapping[str, Candidate]) -> list[Picture]:
    """Return pictures of the distinct stems of arms, given by label, as on the first draw."""
    having: dict[tuple[str, int, str], list[str]] = {}
    traces: dict[tuple[str, int, str], Trace] = {}
    for label, candidate in arms.items():
        model = candidate.model
        key = (model.stem.canonical_json(), model.body.dim, str(model.image_size))
        having.setdefault(key, []).append(label)
        traces.setdefault(key, model.trace())
    keys = list(having)[:MOST]
    if not keys:
        return []
    titles = [stem_label(key[0]) for key in keys]
    notes = [shortened(_said(having[key], len(arms))) for key in keys]
    svg = diagram([traces[key] for key in keys], titles, notes, broadest=_BROADEST)
    text = "; ".join(f"{title}: {', '.join(having[key])}" for title, key in zip(titles, keys, strict=True))
    more = f" {len(having) - MOST} more stems are not drawn." if len(having) > MOST else ""
    return [Picture(Markup(svg), f"{text}.{more}", size="own")]


def _said(arms: list[str], total: int) -> str:
    return "all arms" if len(arms) == total > 1 else "; ".join(arms)
