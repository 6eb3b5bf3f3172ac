"""Image files of users, as a person sees them; what may be seen in two ways is refused."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bpgo.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MOST_PIXELS = 2**26  # about 8192 x 8192; a small file may claim far more
STRETCH = 0.02  # an image may be stretched by so much along one side
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
PLAIN = ("1", "L", "P", "RGB")
OTHER = {
    "CMYK": "holds CMYK, whose colours depend on a printer",
    "I": "has whole numbers of 32 bits as pixels, whose white is not said",
    "F": "has floating point pixels, whose white is not said",
}
# What Pillow's readers raise on damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)


class BrokenImageError(UserError):
    """A file is no image, a part of one, or one that may be seen in several ways."""


def read_image(path: Path) -> Image.Image:
    """An image of 8-bit RGB, turned as its EXIF data say, 16-bit greys as 8-bit ones.

    Raises:
        BrokenImageError: naming the file, which is missing, empty, cut, no image or too large; has
            transparent pixels, several pictures, or pixels of a kind that is seen in several ways.
    """
    try:
        with (
            warnings.catch_warnings()
        ):  # of its size, which is checked here, and of broken EXIF data
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return _seen(image, path)
    except FileNotFoundError:
        raise BrokenImageError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise BrokenImageError(f"{path}: {_TOO_LARGE}") from None
    except UnidentifiedImageError:
        empty = Path(path).stat().st_size == 0
        why = "the file is empty" if empty else f"it is none of {', '.join(FORMATS)}"
        raise BrokenImageError(f"{path}: cannot be read as an image: {why}") from None
    except DAMAGE as error:
        why = " ".join(str(error).split())[:200]
        raise BrokenImageError(f"{path}: cannot be read as an image: {why}") from None


def read_fitting(path: Path, size: tuple[int, int]) -> Image.Image:
    """An image of `size` (width, height), scaled to it (Lanczos, as the diffusers pipelines do).

    Raises:
        BrokenImageError: as for `read_image`, and for another shape.
    """
    found = read_image(path)
    if found.size == size:
        return found
    (width, height), (columns, rows) = found.size, size
    if abs(width * rows / (height * columns) - 1) > STRETCH:
        raise BrokenImageError(
            f"{path}: the first frame has {width} x {height} pixels; clips have {columns} x {rows}:"
            " crop it to that shape"
        )
    return found.resize(size, Image.Resampling.LANCZOS)


def _seen(image: Image.Image, path: Path) -> Image.Image:
    if image.width * image.height > MOST_PIXELS:
        raise BrokenImageError(f"{path}: {_TOO_LARGE}")
    # MPO is JPEG with further pictures behind the first, as telephones write it: viewers show one.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise BrokenImageError(f"{path}: holds several pictures: save the one that is meant")
    image.load()
    turned = ImageOps.exif_transpose(image)
    mode = turned.mode
    if mode in ALPHA or "transparency" in turned.info:
        shown = turned.convert("RGBA")
        if shown.getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]
            raise BrokenImageError(
                f"{path}: has transparent pixels, behind which viewers show different things: lay"
                " it on a background and save it without transparency"
            )
        return shown.convert("RGB")
    if mode.startswith("I;16") and image.format == "PNG":
        levels = np.asarray(turned).astype(np.float64) * (255 / 65535)
        return Image.fromarray(levels.round().astype(np.uint8)).convert("RGB")
    if mode not in PLAIN:
        why = OTHER.get(mode, f"has pixels of the kind {mode}, which viewers show differently")
        raise BrokenImageError(f"{path}: {why}: save it as RGB with 8 bits")
    return turned.convert("RGB")


_TOO_LARGE = f"is larger than {MOST_PIXELS / 1e6:.0f} million pixels: scale it down"
