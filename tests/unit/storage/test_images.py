"""Image files of users: what a person sees, or a refusal that names the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bpgo.storage.images import BrokenImageError, read_fitting, read_image

WIDTH, HEIGHT = 32, 24
LEVELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def picture() -> Image.Image:
    return Image.fromarray(LEVELS)


def levels(path: Path) -> Any:
    found = read_image(path)
    assert found.mode == "RGB"
    return np.asarray(found)


# Of each EXIF orientation (EXIF 2.32, tag 274): how the stored rows and columns are shown.
SHOWN = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
}


@pytest.mark.parametrize("orientation", SHOWN)
def test_turned_as_it_is_shown(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    picture().save(tmp_path / "a.webp", exif=exif, lossless=True)
    assert np.array_equal(levels(tmp_path / "a.webp"), SHOWN[orientation](LEVELS))


def test_a_turned_photograph_fits_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert read_fitting(tmp_path / "a.jpg", (HEIGHT, WIDTH)).size == (HEIGHT, WIDTH)
    with pytest.raises(BrokenImageError, match="has 24 x 32 pixels; clips have 32 x 24"):
        read_fitting(tmp_path / "a.jpg", (WIDTH, HEIGHT))


def test_16_bits(tmp_path: Path) -> None:
    """32896 of 65535 is as bright as 128 of 255; clipped, it would be white."""
    grey = np.array([[0, 128, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert levels(tmp_path / "grey.png")[0, :, 0].tolist() == [0, 0, 128, 255]
    rows = b"\0" + struct.pack(">6H", 0, 32896, 65535, 65535, 0, 32896)
    (tmp_path / "rgb.png").write_bytes(png_file(2, 1, 16, rows))
    assert levels(tmp_path / "rgb.png").tolist() == [[[0, 128, 255], [255, 0, 128]]]


def png_file(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """A PNG file of RGB, as the format's specification (W3C, 3rd edition) says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_palettes_greys_and_telephones(tmp_path: Path) -> None:
    colours = picture().quantize(16)
    colours.save(tmp_path / "palette.png")
    assert np.array_equal(levels(tmp_path / "palette.png"), np.asarray(colours.convert("RGB")))
    colours.save(tmp_path / "still.gif")
    assert np.array_equal(levels(tmp_path / "still.gif"), np.asarray(colours.convert("RGB")))
    picture().convert("L").save(tmp_path / "grey.png")
    assert np.array_equal(levels(tmp_path / "grey.png")[..., 1], np.asarray(picture().convert("L")))
    picture().convert("RGBA").save(tmp_path / "opaque.png")
    assert np.array_equal(levels(tmp_path / "opaque.png"), LEVELS)
    other = Image.new("RGB", (WIDTH, HEIGHT))
    picture().save(tmp_path / "plain.jpg")
    picture().save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[other])
    assert np.array_equal(levels(tmp_path / "phone.jpg"), levels(tmp_path / "plain.jpg"))


def transparent(path: Path) -> None:
    found = picture().convert("RGBA")
    found.putpixel((3, 5), (9, 9, 9, 254))
    found.save(path)


def moving(path: Path) -> None:
    picture().save(path, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])


def cut(path: Path) -> None:
    picture().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


REFUSED: dict[str, tuple[str, Any, str]] = {
    "transparent": ("a.png", transparent, "has transparent pixels"),
    "a transparent colour": (
        "a.png",
        lambda path: picture().save(path, transparency=tuple(map(int, LEVELS[0, 0]))),
        "has transparent pixels",
    ),
    "a transparent index": (
        "a.gif",
        lambda path: picture().quantize(2).save(path, transparency=1),
        "has transparent pixels",
    ),
    "CMYK": ("a.jpg", lambda path: picture().convert("CMYK").save(path), "holds CMYK"),
    "LAB": ("a.tiff", lambda path: picture().convert("LAB").save(path), "of the kind LAB"),
    "floating point": ("a.tiff", lambda path: Image.new("F", (4, 4)).save(path), "floating point"),
    "32 bits": ("a.tiff", lambda path: Image.new("I", (4, 4)).save(path), "of 32 bits"),
    "16 bits without a white": (
        "a.tiff",
        lambda path: Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(path),
        "of the kind I;16",
    ),
    "GIF that moves": ("a.gif", moving, "several pictures"),
    "PNG that moves": ("a.png", moving, "several pictures"),
    "WebP that moves": ("a.webp", moving, "several pictures"),
    "pages": ("a.tiff", moving, "several pictures"),
    "half a PNG": ("a.png", cut, "cannot be read as an image"),
    "half a JPEG": ("a.jpg", cut, "cannot be read as an image"),
    "half a WebP": ("a.webp", cut, "cannot be read as an image"),
    "nothing": ("a.png", lambda path: path.write_bytes(b""), "the file is empty"),
    "text": ("a.png", lambda path: path.write_text("no image"), "it is none of PNG, JPEG"),
    "a folder": ("a.png", lambda path: path.mkdir(), "Is a directory"),
    "missing": ("a.png", lambda path: None, "no such file"),
    "a bomb": (
        "a.png",
        lambda path: path.write_bytes(png_file(60_000, 60_000, 8, b"\0" * 99)),
        "is larger than 67 million pixels",
    ),
    "a smaller bomb": (
        "a.png",
        lambda path: path.write_bytes(png_file(9_000, 9_000, 8, b"\0" * 99)),
        "is larger than 67 million pixels",
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    name, write, wanted = REFUSED[case]
    path = tmp_path / name
    write(path)
    with pytest.raises(BrokenImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert wanted in message
    assert len(message.splitlines()) == 1


@pytest.mark.filterwarnings("ignore")
def test_damaged_anywhere(tmp_path: Path) -> None:
    """No damage is anything but an image or a refusal."""
    draws, path = np.random.default_rng(1), tmp_path / "damaged"
    for suffix in ("png", "jpg", "webp", "gif", "tiff"):
        picture().save(tmp_path / f"whole.{suffix}")
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            for place in draws.integers(0, len(content), 4):
                content[place] = draws.integers(0, 256)
            path.write_bytes(content)
            try:
                found = read_image(path).mode
            except BrokenImageError as error:
                found = str(error)
            assert found == "RGB" or found.startswith(f"{path}: ")
