"""A folder of images, looked at one by one: which can be trained on, what is wrong with the others. No torch here."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from ..errors import SpecError
from ..quantities import first_of
from ..spec.data import FOLDER, Contents, DataSpec
from .cache import Arrays, kept
from .images import KINDS, REASONS, look
from .listing import PARTS, File, Listing, list_images
from .parts import parts

Progress = Callable[[int, int], None]
"""Is told how many images were looked at, and of how many."""

UNKNOWN = "of a class that is not trained"

_FEWEST = 2
_NAMED = 5


@dataclass(frozen=True)
class Survey:
    """What a folder was found to hold.

    `names` are the images that can be trained on, below `root`, with their class in `labels`, the index of their part
    in `own` (of PARTS; all in the training part where the folder has none), and a digest of what is in them in `marks`.
    `key` is another one as soon as any file is changed.
    """

    root: Path
    key: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    own: NDArray[np.int64]
    marks: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    skipped: dict[str, str]
    converted: Counter[str]
    ignored: Counter[str]
    empty: tuple[str, ...]

    @cached_property
    def contents(self) -> Contents:
        """What a study keeps of it. The digest in it is the same wherever the folder lies, and whenever it was made."""
        found = hashlib.sha256(repr(self.classes).encode())
        for name, size, label, part in zip(self.names, self.sizes, self.labels, self.own, strict=True):
            found.update(f"\n{name}\0{size} {label} {part}".encode("utf-8", "surrogateescape"))
        held_out = [int((self.own == part).sum()) for part in (1, 2)]
        # A single held-out part is the test part, whatever it is called: what chooses must not be reported.
        validation, test = held_out if all(held_out) else (0, sum(held_out))
        return Contents(
            classes=len(self.classes),
            train=len(self.names) - sum(held_out),
            validation=validation or None,
            test=test or None,
            listing=found.hexdigest()[:16],
        )

    def parts(self, spec: DataSpec) -> Arrays:
        """Return the places in `names` of the images of `train`, `validation` and `test`."""
        return parts(self.labels, spec, [np.flatnonzero(self.own == part) for part in range(3)])

    def absent(self) -> dict[str, list[str]]:
        """Return, of each held-out part that the folder has, the classes of which it has no image."""
        present = {PARTS[part]: set(self.labels[self.own == part]) for part in (1, 2)}
        return {
            name: [one for label, one in enumerate(self.classes) if label not in labels]
            for name, labels in present.items()
            if labels and len(labels) < len(self.classes)
        }

    def shared(self, spec: DataSpec | None) -> int | None:
        """Return how many held-out images are, byte for byte, in another part too; None where parts are not known."""
        if spec is None:
            return None
        train, validation, test = (self.marks[found] for found in self.parts(spec).values())
        return int(np.isin(validation, train).sum() + np.isin(test, np.concatenate([train, validation])).sum())

    def as_dict(self, spec: DataSpec | None) -> dict[str, Any]:
        """Return all there is to report, as a JSON document. `spec` says which part an image is in, where known."""
        return {
            "folder": str(self.root),
            "images": len(self.names) + len(self.skipped),
            "usable": len(self.names),
            "classes": list(self.classes),
            "parts": {} if spec is None else {name: len(found) for name, found in self.parts(spec).items()},
            "skipped": dict(Counter(self.skipped.values()).most_common()),
            "converted": dict(self.converted.most_common()),
            "ignored": dict(self.ignored.most_common()),
            "empty_classes": list(self.empty),
            "absent_classes": self.absent(),
            "in_two_parts": self.shared(spec),
            "files": self.skipped,
        }

    def summary(self, spec: DataSpec | None) -> str:
        """Return in a line or two what a user must know before anything is trained; nothing where all is well."""
        said, total = [], len(self.names) + len(self.skipped)
        if self.skipped:
            said.append(
                f"{len(self.skipped)} of {total} images are skipped: {_counted(Counter(self.skipped.values()))}"
            )
        if self.converted:
            said.append(f"converted: {_counted(self.converted)}")
        if self.empty:
            said.append(f"classes without an image: {first_of(self.empty, _NAMED)}")
        said += [f"classes that {part} lacks: {first_of(names, _NAMED)}" for part, names in self.absent().items()]
        shared = self.shared(spec)
        if shared:
            said.append(f"{shared} images are in two parts, which makes the held-out results too good")
        return f"{self.root}: {'; '.join(said)}" if said else ""


def survey(name: str, progress: Progress | None = None) -> Survey:
    """Look at all images of the set `folder:PATH`; SpecError where most are bad, or fewer than two classes are left.

    What was found out about a folder is kept: while no file changes, the next time takes no longer than a listing.
    """
    listing = list_images(name.removeprefix(FOLDER))
    files = listing.files
    if not files:
        raise SpecError(f"{listing.root}: there are no images below folders of classes{_but(listing.ignored)}")
    key = f"folder-{listing.digest}-pillow-{PIL.__version__}"
    found = kept(key, partial(_look_at_all, listing, progress or (lambda done, total: None)))
    bad = {file.name: REASONS[code] for file, code in zip(files, found["reasons"], strict=True) if code}
    if 2 * len(bad) > len(files):
        raise SpecError(f"{listing.root}: {len(bad)} of {len(files)} images are bad: {_counted(Counter(bad.values()))}")
    return _survey(listing, found, bad)


def _survey(listing: Listing, found: Arrays, bad: dict[str, str]) -> Survey:
    good = [(place, file) for place, file in enumerate(listing.files) if file.name not in bad]
    classes = tuple(sorted({file.of_class for _, file in good if file.part == "train"}))
    if len(classes) < _FEWEST:
        raise SpecError(
            f"{listing.root}: {len(classes) or 'no'} class{'' if len(classes) == 1 else 'es'} with images to train on"
            f"{f' ({classes[0]})' if classes else ''}; expected a folder for each of two classes or more"
        )
    index = {name: label for label, name in enumerate(classes)}
    used = [(place, file) for place, file in good if file.of_class in index]
    skipped = bad | {file.name: UNKNOWN for _, file in good if file.of_class not in index}
    chosen = [place for place, _ in used]
    kinds = Counter(KINDS[code] for code in found["kinds"][chosen] if code)
    return Survey(
        root=listing.root,
        key=listing.digest,
        classes=classes,
        names=tuple(file.name for _, file in used),
        labels=np.array([index[file.of_class] for _, file in used], np.int64),
        own=np.array([PARTS.index(file.part) for _, file in used], np.int64),
        marks=found["marks"][chosen],
        sizes=np.array([file.size for _, file in used], np.int64),
        skipped=skipped,
        converted=kinds,
        ignored=listing.ignored,
        empty=tuple(sorted({*listing.classes["train"]} - {*classes})),
    )


def _look_at_all(listing: Listing, progress: Progress) -> Arrays:
    """Read and decode every image. By threads: Pillow's decoders leave Python's lock to others."""
    files = listing.files
    reasons, kinds, marks = (np.zeros(len(files), kind) for kind in (np.uint8, np.uint8, np.uint64))

    def one(file: File) -> tuple[int, int, int]:
        seen = look(listing.root / file.name)
        return REASONS.index(seen.reason), KINDS.index(seen.kind), seen.mark

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # of Pillow's about what it reads all the same
        for start in range(0, len(files), _AT_A_TIME):
            several = files[start : start + _AT_A_TIME]
            for place, seen in enumerate(pool.map(one, several), start=start):
                reasons[place], kinds[place], marks[place] = seen
            progress(start + len(several), len(files))
    return {"reasons": reasons, "kinds": kinds, "marks": marks}


_AT_A_TIME = 256


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{times} {what}" for what, times in found.most_common())


def _but(ignored: Counter[str]) -> str:
    return f"; other files: {_counted(ignored)}" if ignored else ""
