"""Published stems: YAML files with citation, stem and golden counts, one file for each design.

A file's `scales` are its published sizes; the entry's name is the file's, then the scale's: levit.yaml, scale 128,
is levit_128.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .. import published
from ..errors import SpecError, nearest, one_of

if TYPE_CHECKING:
    from ..spec import ModelSpec, StemSpec, Trace


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
    it adapts. `golden` holds flops (multiply-adds), bias_adds, params, activations, output [channels, height, width],
    stride and receptive_field of the stem; `golden_model` the counts of the whole model where that is published too.
    `checked` says against what the numbers of the stem are compared: "timm NAME", "torchvision NAME", or "counts".

    `written` and `body` are as the file says; they become specs, `stem` and `model`, when they are asked for.
    """

    name: str
    family: str
    title: str
    paper: Paper
    source: str
    written: Mapping[str, Any]
    dim: int
    golden: Mapping[str, Any]
    scale: str | None = None
    image_size: int | tuple[int, int] = 224
    in_channels: int = 3
    body: str | Mapping[str, Any] | None = None
    golden_model: Mapping[str, int] = field(default_factory=dict)
    notes: str = ""
    checked: str = "counts"

    @cached_property
    def stem(self) -> StemSpec:
        """The spec of the stem."""
        from ..spec import StemSpec

        return StemSpec.model_validate(self.written)

    @cached_property
    def model(self) -> ModelSpec | None:
        """The spec of the whole model, where the stem was published as part of a plain ViT."""
        from ..spec import BodySpec, ModelSpec

        if self.body is None:
            return None
        return ModelSpec(stem=self.stem, body=BodySpec.model_validate(self.body), image_size=self.image_size)

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of the published input."""
        height, width = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        return (self.in_channels, height, width)

    def trace(self) -> Trace:
        """Follow the published image through the stem."""
        return self.stem.trace(*self.image[1:], self.dim, self.in_channels)

    def _repr_svg_(self) -> str:
        """Return the picture that a notebook shows."""
        from ..drawing import diagram

        return diagram(self.trace(), self.name, f"{self.title} ({self.paper.citation})")

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as `stemlab zoo --json` prints it."""
        paper = {name: value for name, value in vars(self.paper).items() if value}
        return {
            "name": self.name,
            "family": self.family,
            "scale": self.scale,
            "title": self.title,
            "paper": {**paper, "authors": list(self.paper.authors)},
            "bibtex": self.paper.bibtex(),
            "source": self.source,
            "stem": dict(self.written),
            "dim": self.dim,
            "image": list(self.image),
            **self.golden,
            "body": self.body,
            "model": dict(self.golden_model) or None,
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
        if stride in (None, entry.golden["stride"]) and (max_params is None or entry.golden["params"] <= max_params)
    ]


def get(name: str) -> ZooEntry:
    """Return one entry by name, in any case; SpecError names the nearest one."""
    try:
        data = dict(published.read(name))
    except KeyError as error:
        raise SpecError(str(error.args[0])) from None
    paper, size = data.pop("paper"), data.pop("image_size", 224)
    return ZooEntry(
        written=data.pop("stem"),
        paper=Paper(**{**paper, "authors": tuple(paper.get("authors", ()))}),
        image_size=size if isinstance(size, int) else tuple(size),
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
        golden = entry.golden
        link = f"https://arxiv.org/abs/{entry.paper.arxiv}" if entry.paper.arxiv else entry.paper.url
        paper = f"[{entry.paper.title}]({link})" if link else entry.paper.title
        cells = (
            f"`{entry.name}`",
            entry.title,
            f"{paper}, {entry.paper.year}",
            *("x".join(map(str, sizes)) for sizes in (entry.image, golden["output"])),
            str(golden["stride"]),
            str(golden["receptive_field"]),
            f"{golden['params']:,}",
            f"{golden['flops']:,}",
            entry.checked,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
