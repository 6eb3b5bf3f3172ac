"""A picture that was damaged after it was drawn is in no page: the report names its file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from PIL import Image

from bpgo.analysis import FIGURES
from bpgo.analysis.pictures import drawn_figures, grid_pictures
from bpgo.config.settings import Settings
from bpgo.errors import UserError


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


def empty(content: bytes) -> bytes:
    return content[:0]


def other(content: bytes) -> bytes:
    return b"x" * len(content)


Damage = Callable[[bytes], bytes]
CUT: list[Damage] = [cut, empty, other]


def pages() -> list[Image.Image]:
    """Noise, so that every byte in the middle of a file is a picture's."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in "ab"]


def draw(settings: Settings, folder: Path) -> None:
    """All figures and grids."""
    first, second = pages()
    for name in (*FIGURES, *settings.experiments):
        first.save(folder / f"{name}.png")
    for name in settings.experiments:
        more = {"append_images": [second], "lossless": True}
        first.save(folder / f"{name}.webp", save_all=True, **more)


def damage(path: Path, how: Damage) -> None:
    path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize("how", [*CUT, flipped])
def test_a_damaged_figure_is_named(
    settings: Settings, frames: dict[str, pd.DataFrame], tmp_path: Path, how: Damage
) -> None:
    draw(settings, tmp_path)
    assert len(drawn_figures(settings, tmp_path, frames)[0]) == len(FIGURES)
    damage(tmp_path / f"{FIGURES[1]}.png", how)
    with pytest.raises(UserError, match=rf"{re.escape(FIGURES[1])}\.png: .*image.*`plots` again"):
        drawn_figures(settings, tmp_path, frames)


@pytest.mark.parametrize("how", [*CUT, flipped])
def test_a_damaged_grid_is_named(settings: Settings, tmp_path: Path, how: Damage) -> None:
    draw(settings, tmp_path)
    damage(tmp_path / "ambiguous.png", how)
    with pytest.raises(UserError, match=r"ambiguous\.png: .*image.*`grids` again"):
        grid_pictures(settings, tmp_path)


@pytest.mark.parametrize("how", CUT)
def test_a_damaged_moving_grid_is_named(settings: Settings, tmp_path: Path, how: Damage) -> None:
    draw(settings, tmp_path)
    video = synthetic.as_video(settings, "t2v")
    kinds = [picture.kind for picture in grid_pictures(video, tmp_path)]
    assert kinds == ["moving", "still"] * len(settings.experiments)
    damage(tmp_path / "ambiguous.webp", how)
    with pytest.raises(UserError, match=r"ambiguous\.webp: .*image.*`grids` again"):
        grid_pictures(video, tmp_path)


def test_a_grid_that_is_not_there_is_said(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(settings, tmp_path)
    (tmp_path / "ambiguous.png").unlink()
    names = [picture.name for picture in grid_pictures(settings, tmp_path)]
    assert names == [name for name in settings.experiments if name != "ambiguous"]
    assert f"missing: {tmp_path / 'ambiguous.png'}: no such grid" in capsys.readouterr().err
