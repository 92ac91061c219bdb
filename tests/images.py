"""Folders of small images for tests, whole and damaged."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200))


def picture(label: int, seed: int, size: tuple[int, int] = (20, 24)) -> Image.Image:
    """Return an image that can be told from those of other classes: a square of a colour on noise."""
    drawn = np.random.default_rng((label, seed))
    pixels = drawn.integers(0, 120, (*size, 3), dtype=np.uint8)
    top, left = drawn.integers(0, 8, 2)
    pixels[top : top + 10, left : left + 10] = COLOURS[label % len(COLOURS)]
    return Image.fromarray(pixels)


def save(image: Image.Image, path: Path, kind: str = "png") -> Path:
    """Write an image in one of many ways; return its path, which ends as its format does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "16-bit":
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        image, kind = Image.fromarray(grey), "png"
    elif kind in ("CMYK", "L"):
        image, kind = image.convert(kind), "jpg"
    elif kind in ("P", "RGBA"):
        image, kind = image.convert(kind), "png"
    path = path.with_name(f"{path.name}.{kind}")
    image.save(path)
    return path


def content(image: Image.Image, kind: str) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def enormous() -> bytes:
    """Return a small PNG that says of itself that it has 900 million pixels."""
    whole = bytearray(content(Image.new("L", (8, 8)), "png"))
    whole[16:24] = struct.pack(">II", 30_000, 30_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(bytes(whole[12:29])))
    return bytes(whole)


def five_hundred(root: Path) -> dict[str, str]:
    """Make a folder of 500 images of 5 classes, 25 of them damaged; return these with what is wrong with each."""
    kinds = ("png", "jpg", "webp", "bmp", "L", "CMYK", "16-bit", "P", "RGBA", "jpg")
    wrong = {}
    for label in range(5):
        for number in range(95):
            save(picture(label, number), root / f"class{label}" / f"{number:03}", kinds[number % len(kinds)])
        jpg, png = (content(picture(label, 99), kind) for kind in ("jpeg", "png"))
        damaged = {
            "empty.png": (b"", "empty"),
            "text.jpg": (b"not an image at all", "not an image"),
            "half.jpg": (jpg[: len(jpg) // 2], "truncated"),
            "broken.png": (png[:60] + bytes(8) + png[68:], "damaged"),
            "bomb.png": (enormous(), "too large"),
        }
        for name, (written, reason) in damaged.items():
            (root / f"class{label}" / name).write_bytes(written)
            wrong[f"class{label}/{name}"] = reason
    (root / "class0" / ".hidden.png").write_bytes(b"")
    (root / "class0" / "notes.txt").write_text("who took these")
    return wrong
