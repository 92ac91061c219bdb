"""Image files: what is wrong with them, and how they become three bytes a pixel. No torch here."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What the names of images end with, in capitals or not."""

REASONS = ("", "empty", "not an image", "truncated", "damaged", "unreadable", "too large", "of 32 bits a number")
"""Why an image is skipped; nothing where it is not."""

KINDS = ("", "grayscale", "CMYK", "palette", "transparency", "16-bit", "other colours")
"""What an image is converted from; nothing where it has three bytes a pixel."""

_KIND_OF = {
    **dict.fromkeys(("1", "L"), "grayscale"),
    "CMYK": "CMYK",
    "P": "palette",
    **dict.fromkeys(("LA", "La", "PA", "RGBA", "RGBa", "RGBX"), "transparency"),
}

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"GIF8")
"""The first bytes of files that were images once."""


class BadImage(Exception):
    """A file that is no image to train on; its text is one of REASONS."""


@dataclass(frozen=True)
class Look:
    """What came of looking at a file: one of REASONS, one of KINDS, and a digest of what is in it."""

    reason: str
    kind: str = ""
    mark: int = 0


def look(path: str | os.PathLike[str]) -> Look:
    """Read and decode a file, all of it."""
    try:
        content = _read(path)
        _, kind = decode(content)
    except BadImage as bad:
        return Look(str(bad))
    return Look("", kind, int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big"))


def open_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """Return an image in three bytes a pixel; BadImage where there is none."""
    return decode(_read(path))[0]


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        raise BadImage("unreadable") from None


def decode(content: bytes) -> tuple[Image.Image, str]:
    """Return the image that the bytes of a file are, in three bytes a pixel, and what it was converted from."""
    if not content:
        raise BadImage("empty")
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        return to_rgb(image)
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage("too large") from None
    except UnidentifiedImageError:
        raise BadImage("damaged" if content.startswith(_BEGINNINGS) else "not an image") from None
    except Exception as error:  # decoders raise whatever they come upon
        text = str(error).lower()
        raise BadImage("truncated" if "truncated" in text or "end of file" in text else "damaged") from None


def to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Return an image in three bytes a pixel, and what it was converted from. Numbers of 16 bits are scaled down."""
    if image.mode == "RGB":
        return image, ""
    # Older versions of Pillow read the 16 bits of these formats into 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow's own conversion clips, which leaves a white image.
        grey = np.asarray(image).astype(np.uint32) * 255 // 65535
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB"), "16-bit"
    if image.mode in ("I", "F"):
        raise BadImage("of 32 bits a number")
    return image.convert("RGB"), _KIND_OF.get(image.mode, "other colours")
