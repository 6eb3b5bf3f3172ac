"""Clips of the video world: 5 frames of 32 x 32 RGB, 2 x 2 cells of 16 pixels.

Each object lives in a cell of its own. It starts near the middle and moves in one direction, or not
at all, one pixel a frame, always at whole pixels: so a first frame does not tell what will move, or
where to. A clip is [5, 3, 32, 32] float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bpgo.scenes.captions import COLOURS, SHAPES, SIZES, Phrase
from bpgo.scenes.image.render import blank, blend, coverage, other
from bpgo.scenes.video.captions import DIRECTIONS, MOTIONS, MOVES, STILL, Caption, Clause
from bpgo.seeding import numpy_generator

GRID = 2
CELL = 16
CLIP_SIZE = GRID * CELL
FRAMES = 5
DIAMETER = {"small": 6, "large": 8}
"""Larger than in the image world, so that a codec of 8 x in space keeps their shapes."""
FIRST_START = FRAMES - 1
"""Lowest offset along each axis at which an object may start: it can go either way in its cell."""

STEP: dict[str, tuple[int, int]] = {
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
    STILL: (0, 0),
}
"""Pixels a frame, downwards and to the right."""


@dataclass(frozen=True)
class MovingObject:
    """One object: what it is and does, its cell, its offset there in the first frame, in pixels."""

    shape: str
    colour: str
    size: str
    motion: str
    row: int
    column: int
    top: int
    left: int


Scene = tuple[MovingObject, ...]
"""One to three objects (four at most), each in a cell of its own."""


def check_clips(shape: tuple[int, ...], texts: int) -> None:
    """ValueError unless a batch of clips has the shape [B, 5, 3, 32, 32] and a text for each."""
    wanted = (FRAMES, 3, CLIP_SIZE, CLIP_SIZE)
    if len(shape) != 5 or tuple(shape[1:]) != wanted:
        raise ValueError(
            f"clips have shape {tuple(shape)}, wanted [B, {FRAMES}, 3, {CLIP_SIZE}, {CLIP_SIZE}]"
        )
    if texts != shape[0]:
        raise ValueError(f"{shape[0]} clips but {texts} texts")


def starts(size: str) -> int:
    """At how many offsets from FIRST_START an object may start, along each axis."""
    return CELL - DIAMETER[size] - 2 * FIRST_START + 1


def render(scene: Scene) -> NDArray[np.float32]:
    """Draw a scene: [5, 3, 32, 32] in [0, 1]."""
    clip = np.stack([blank(CLIP_SIZE, CLIP_SIZE)] * FRAMES)
    for thing in scene:
        alpha = coverage(thing.shape, DIAMETER[thing.size])
        down, right = STEP[thing.motion]
        top, left = thing.row * CELL + thing.top, thing.column * CELL + thing.left
        for frame in range(FRAMES):
            blend(clip[frame], alpha, thing.colour, top + frame * down, left + frame * right)
    return clip


def render_batch(scenes: Sequence[Scene]) -> NDArray[np.float32]:
    """Draw scenes: [B, 5, 3, 32, 32] in [0, 1]."""
    clips = np.empty((len(scenes), FRAMES, 3, CLIP_SIZE, CLIP_SIZE), dtype=np.float32)
    for clip, scene in zip(clips, scenes, strict=True):
        clip[...] = render(scene)
    return clips


def sample_scene(caption: Caption, generator: np.random.Generator) -> Scene:
    """Draw a scene that meets the caption; all the caption leaves open is uniform.

    A definite caption that names one object gets, half the time, a second one that stays still.
    """
    clauses = list(caption.clauses)
    if caption.definite and len(clauses) == 1 and generator.uniform() < 0.5:
        clauses.append(Clause(Phrase(), STILL))
    cells = generator.permutation(GRID * GRID)[: len(clauses)]
    return tuple(
        _draw_object(clause, divmod(int(cell), GRID), generator)
        for clause, cell in zip(clauses, cells, strict=True)
    )


def _draw_object(
    clause: Clause, cell: tuple[int, int], generator: np.random.Generator
) -> MovingObject:
    draws = generator.integers(0, 1 << 16, size=6).tolist()
    phrase, motion = clause.phrase, clause.motion
    if motion not in MOTIONS:
        options = DIRECTIONS if motion == MOVES else MOTIONS
        motion = options[draws[3] % len(options)]
    size = phrase.size or SIZES[draws[0] % len(SIZES)]
    return MovingObject(
        phrase.shape or SHAPES[draws[1] % len(SHAPES)],
        phrase.colour or COLOURS[draws[2] % len(COLOURS)],
        size,
        motion,
        *cell,
        FIRST_START + draws[4] % starts(size),
        FIRST_START + draws[5] % starts(size),
    )


def crowded_scene(occupied: float, generator: np.random.Generator) -> Scene:
    """Draw a scene for no caption: each cell holds an object with probability ``occupied``."""
    cells = [cell for cell in range(GRID * GRID) if generator.uniform() < occupied]
    return tuple(_draw_object(Clause(Phrase()), divmod(cell, GRID), generator) for cell in cells)


def first_frame(caption: Caption, *key: int | str) -> NDArray[np.float32]:
    """A first frame [3, 32, 32] for a caption, the same for the same text and key.

    The objects named stand where they can do what the caption says; there may be one more.
    """
    draws = numpy_generator("first frame", caption.text, *key)
    return render(sample_scene(caption, draws))[0]


def mutate_scene(scene: Scene, changes: int, generator: np.random.Generator) -> Scene:
    """Change a scene at random ``changes`` times: a look, a motion, an object more or less."""
    objects = list(scene)
    for _ in range(changes):
        kind = int(generator.integers(8))
        index = int(generator.integers(len(objects)))
        thing = objects[index]
        taken = {(one.row, one.column) for one in objects}
        free = [cell for cell in product(range(GRID), repeat=2) if cell not in taken]
        row, column = free[int(generator.integers(len(free)))]
        if kind == 0:
            objects[index] = replace(thing, shape=other(SHAPES, thing.shape, generator))
        elif kind == 1:
            objects[index] = replace(thing, colour=other(COLOURS, thing.colour, generator))
        elif kind == 2:
            size = other(SIZES, thing.size, generator)
            last = FIRST_START + starts(size) - 1
            objects[index] = replace(
                thing, size=size, top=min(thing.top, last), left=min(thing.left, last)
            )
        elif kind == 3 and len(objects) > 1:
            objects.pop(index)
        elif kind == 4 and len(objects) < 3:
            objects.append(replace(thing, row=row, column=column))
        else:  # most often the motion, which no single frame shows
            motion = other(MOTIONS, thing.motion, generator)
            objects[index] = replace(thing, motion=motion)
    return tuple(objects)
