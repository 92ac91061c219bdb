"""Published stems: YAML files with citation, stem and golden counts, one file for each design.

A file's `scales` are its published sizes; the entry's name is the file's, then the scale's: levit.yaml, scale 128,
is levit_128.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import SpecError, nearest, one_of
from ..spec import BodySpec, ModelSpec, StemSpec, Trace, published
from ..spec.base import pair


@dataclass(frozen=True)
class Paper:
    """What to cite."""

    title: str
    year: int
    authors: tuple[str, ...] = ()
    arxiv: str | None = None
    venue: str | None = None
    url: str | None = None

    @property
    def citation(self) -> str:
        """In short: the arXiv id, or where there is none the venue or address."""
        return f"arXiv {self.arxiv}" if self.arxiv else self.venue or self.url or self.title

    def bibtex(self) -> str:
        """Return a BibTeX entry; its key is the first author, the year and the title's first word."""
        first = self.authors[0].split()[-1] if self.authors else ""
        key = re.sub(r"[^a-z0-9]", "", f"{first}{self.year}{self.title.split()[0]}".lower())
        fields = {
            "title": f"{{{self.title}}}",
            "author": " and ".join(self.authors),
            "year": str(self.year),
            "booktitle": self.venue,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else None,
            "url": self.url,
        }
        lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
        return f"@{'inproceedings' if self.venue else 'misc'}{{{key},\n" + ",\n".join(lines) + "\n}"


@dataclass(frozen=True)
class ZooEntry:
    """A published stem: what it is, where it was published, and the counts that its authors' code gives.

    At body width `dim` and its own image the stem is the published one, to the parameter; on another width what ends
    it adapts. `golden` holds flops (multiply-adds), bias_adds, params, activations and output [channels, height,
    width] of the stem; `golden_model` the counts of the whole model where `model` is published too. `checked` says
    against what the numbers of the stem are compared: "timm NAME", "torchvision NAME", or "counts" alone.
    """

    name: str
    family: str
    title: str
    paper: Paper
    source: str
    stem: StemSpec
    dim: int
    golden: Mapping[str, Any]
    scale: str | None = None
    image_size: int | tuple[int, int] = 224
    in_channels: int = 3
    model: ModelSpec | None = None
    golden_model: Mapping[str, int] = field(default_factory=dict)
    notes: str = ""
    checked: str = "counts"

    def trace(self) -> Trace:
        """Follow the published image through the stem."""
        return self.stem.trace(*pair(self.image_size), self.dim, self.in_channels)

    def _repr_svg_(self) -> str:
        """Return the picture that a notebook shows."""
        from ..drawing import diagram

        return diagram(self.trace(), self.name, f"{self.title} ({self.paper.citation})")

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as `stemlab zoo --json` prints it, with the cost, stride and receptive field of the stem."""
        trace = self.trace()
        paper = {name: value for name, value in vars(self.paper).items() if value}
        return {
            "name": self.name,
            "family": self.family,
            "scale": self.scale,
            "title": self.title,
            "paper": {**paper, "authors": list(self.paper.authors)},
            "bibtex": self.paper.bibtex(),
            "source": self.source,
            "stem": self.stem.canonical(),
            "dim": self.dim,
            "image_size": list(pair(self.image_size)),
            "in_channels": self.in_channels,
            **trace.counts._asdict(),
            "output": list(trace.end),
            "stride": list(trace.stride),
            "receptive_field": list(trace.receptive_field),
            "golden": dict(self.golden),
            "model": self.model.canonical() if self.model else None,
            "golden_model": dict(self.golden_model),
            "notes": self.notes,
            "checked": self.checked,
        }


def names() -> list[str]:
    """Return the names of all entries, sorted."""
    return published.names()


def models() -> list[str]:
    """Return the names of the entries that are whole models, sorted."""
    return [name for name in names() if "body" in published.read(name)]


def families() -> list[str]:
    """Return the families that the entries belong to, sorted."""
    return sorted({published.read(name)["family"] for name in names()})


def select(family: str | None = None, stride: int | None = None, max_params: int | None = None) -> list[ZooEntry]:
    """Return the entries of a family, of a total stride, of at most so many parameters; SpecError if no such family."""
    if family is not None and family not in families():
        raise SpecError(f"no family {family!r} in the zoo; expected {one_of(families())}{nearest(family, families())}")
    chosen = [get(name) for name in names() if family in (None, published.read(name)["family"])]
    return [
        entry
        for entry in chosen
        if stride in (None, max(entry.trace().stride))
        and (max_params is None or entry.trace().counts.params <= max_params)
    ]


def get(name: str) -> ZooEntry:
    """Return one entry by name, in any case; SpecError names the nearest one."""
    try:
        data = dict(published.read(name))
    except KeyError as error:
        raise SpecError(str(error.args[0])) from None
    paper, body = data.pop("paper"), data.pop("body", None)
    stem = StemSpec.model_validate(data.pop("stem"))
    size = data.pop("image_size", 224)
    size = size if isinstance(size, int) else tuple(size)
    model = None
    if body is not None:
        model = ModelSpec(stem=stem, body=BodySpec.model_validate(body), image_size=size)
    return ZooEntry(
        stem=stem,
        image_size=size,
        paper=Paper(**{**paper, "authors": tuple(paper.get("authors", ()))}),
        model=model,
        golden_model=data.pop("model", {}),
        **data,
    )


def table(entries: Sequence[ZooEntry]) -> str:
    """Return a Markdown table of entries: what docs/zoo.md holds."""
    lines = [
        "| name | stem | paper | image | output | stride | sees | params | flops | checked against |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        trace = entry.trace()
        link = f"https://arxiv.org/abs/{entry.paper.arxiv}" if entry.paper.arxiv else entry.paper.url
        paper = f"[{entry.paper.title}]({link})" if link else entry.paper.title
        cells = (
            f"`{entry.name}`",
            entry.title,
            f"{paper}, {entry.paper.year}",
            *("x".join(map(str, sizes)) for sizes in (trace.start, trace.end, trace.stride, trace.receptive_field)),
            f"{trace.counts.params:,}",
            f"{trace.counts.flops:,}",
            entry.checked,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
