"""Scenes of the embedded world and their images.

An image is 24 x 24 RGB: 3 x 3 cells of 8 pixels, each empty or holding one object, drawn with
anti-aliased edges at a whole-pixel offset that keeps it inside its cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bpgo.scenes.captions import COLOURS, SHAPES, SIZES, Caption

GRID = 3
CELL = 8
IMAGE_SIZE = GRID * CELL

BACKGROUND: tuple[float, float, float] = (0.11, 0.12, 0.15)
RGB: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.18, 0.16),
    "green": (0.16, 0.74, 0.30),
    "blue": (0.22, 0.38, 0.96),
    "yellow": (0.97, 0.84, 0.18),
}
DIAMETER = {"small": 5, "large": 7}
_FINE = 8  # samples per pixel and axis: smooth edges


@dataclass(frozen=True)
class SceneObject:
    """One object: what it is, its cell, and its offset in it, in pixels from the top left."""

    shape: str
    colour: str
    size: str
    row: int
    column: int
    top: int
    left: int


@dataclass(frozen=True)
class Scene:
    """One to three objects (nine at most), each in its own cell."""

    objects: tuple[SceneObject, ...]


@cache
def coverage(shape: str, diameter: int) -> NDArray[np.float32]:
    """Share of each pixel that the shape covers, [diameter, diameter] in [0, 1]."""
    fine = (np.arange(diameter * _FINE) + 0.5) / (diameter * _FINE) * 2 - 1
    y, x = fine[:, None], fine[None, :]
    inside = {
        "circle": x**2 + y**2 <= 1,
        "square": (abs(x) <= 0.9) & (abs(y) <= 0.9),
        "triangle": abs(x) <= (y + 1) / 2,
        "cross": ((abs(x) <= 0.34) | (abs(y) <= 0.34)) & (abs(x) <= 1) & (abs(y) <= 1),
    }[shape]
    blocks = inside.astype(np.float32).reshape(diameter, _FINE, diameter, _FINE)
    return blocks.mean(axis=(1, 3)).astype(np.float32)


def offsets(size: str) -> int:
    """Number of whole-pixel offsets per axis that keep an object of this size in its cell."""
    return CELL - DIAMETER[size] + 1


def draw(image: NDArray[np.float32], thing: SceneObject) -> None:
    """Blend one object into an image [3, H, W] in place; its cell counts from the top left."""
    top, left = thing.row * CELL + thing.top, thing.column * CELL + thing.left
    blend(image, coverage(thing.shape, DIAMETER[thing.size]), thing.colour, top, left)


def blend(
    image: NDArray[np.float32], alpha: NDArray[np.float32], colour: str, top: int, left: int
) -> None:
    """Blend a coloured coverage [d, d] into an image [3, H, W] in place, at a pixel offset."""
    patch = image[:, top : top + len(alpha), left : left + len(alpha)]
    patch += alpha * (np.array(RGB[colour], dtype=np.float32)[:, None, None] - patch)


def blank(height: int = IMAGE_SIZE, width: int = IMAGE_SIZE) -> NDArray[np.float32]:
    """An empty image [3, height, width]."""
    background = np.array(BACKGROUND, dtype=np.float32)[:, None, None]
    return np.broadcast_to(background, (3, height, width)).copy()


def render(scene: Scene) -> NDArray[np.float32]:
    """Draw a scene: [3, 24, 24] in [0, 1]."""
    image = blank()
    for thing in scene.objects:
        draw(image, thing)
    return image


def render_batch(scenes: Sequence[Scene]) -> NDArray[np.float32]:
    """Draw scenes: [B, 3, 24, 24] in [0, 1]."""
    images = np.empty((len(scenes), 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    for image, scene in zip(images, scenes, strict=True):
        image[...] = render(scene)
    return images


def related(relation: str | None, first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether cell ``first`` (row, column) stands to ``second`` as the relation says."""
    if relation is None:
        return True
    return {
        "left_of": first[1] < second[1],
        "right_of": first[1] > second[1],
        "above": first[0] < second[0],
        "below": first[0] > second[0],
    }[relation]


@cache
def _related_cells(relation: str | None) -> list[tuple[int, int]]:
    """Ordered pairs of different cells (0 to 8) that meet the relation."""
    cells = range(GRID * GRID)
    return [
        (a, b)
        for a in cells
        for b in cells
        if a != b and related(relation, divmod(a, GRID), divmod(b, GRID))
    ]


def sample_scene(caption: Caption, generator: np.random.Generator) -> Scene:
    """Draw a scene that meets the caption; all the caption leaves open is uniform."""
    if caption.relation is not None:
        pairs = _related_cells(caption.relation)
        cells = list(pairs[int(generator.integers(len(pairs)))])
    else:
        cells = [int(cell) for cell in generator.permutation(GRID * GRID)[: caption.count]]
    draws = generator.integers(0, 1 << 16, size=(caption.count, 5))
    objects = []
    for phrase, cell, draw_ in zip(caption.phrases, cells, draws.tolist(), strict=True):
        size = phrase.size or SIZES[draw_[0] % len(SIZES)]
        objects.append(
            SceneObject(
                shape=phrase.shape or SHAPES[draw_[1] % len(SHAPES)],
                colour=phrase.colour or COLOURS[draw_[2] % len(COLOURS)],
                size=size,
                row=cell // GRID,
                column=cell % GRID,
                top=draw_[3] % offsets(size),
                left=draw_[4] % offsets(size),
            )
        )
    return Scene(tuple(objects))


def mutate_scene(scene: Scene, changes: int, generator: np.random.Generator) -> Scene:
    """Change a scene at random ``changes`` times: an attribute, a cell, an object more or less."""
    objects = list(scene.objects)
    for _ in range(changes):
        kind = int(generator.integers(6))
        index = int(generator.integers(len(objects)))
        thing = objects[index]
        taken = {(one.row, one.column) for one in objects}
        free = [cell for cell in np.ndindex(GRID, GRID) if cell not in taken]
        row, column = free[int(generator.integers(len(free)))]
        if kind == 0:
            objects[index] = replace(thing, shape=other(SHAPES, thing.shape, generator))
        elif kind == 1:
            objects[index] = replace(thing, colour=other(COLOURS, thing.colour, generator))
        elif kind == 2:
            size = other(SIZES, thing.size, generator)
            top, left = min(thing.top, offsets(size) - 1), min(thing.left, offsets(size) - 1)
            objects[index] = replace(thing, size=size, top=top, left=left)
        elif kind == 3 and len(objects) > 1:
            objects.pop(index)
        elif kind == 4 and len(objects) < 4:
            objects.append(replace(objects[index], row=row, column=column))
        else:
            objects[index] = replace(thing, row=row, column=column)
    return Scene(tuple(objects))


def other(options: tuple[str, ...], current: str, generator: np.random.Generator) -> str:
    """One of the options that is not the current one."""
    rest = [option for option in options if option != current]
    return rest[int(generator.integers(len(rest)))]
