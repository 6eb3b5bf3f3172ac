"""The oracle of the video world: reads any clip back and says how far it does what was asked.

A cell is compared with every look at every place, in closed form: with d the pixels minus the
background and t = alpha x c a template (coverage times colour minus background),
|d - t|^2 = |d|^2 - 2 sum(alpha <d, c>) + |alpha|^2 |c|^2, and the sum for all places is one small
convolution. The look that explains all frames best, each at its best place, is what the cell holds;
its places are its path. No reward model and no arm sees the oracle in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from bpgo.scenes.captions import COLOURS, SHAPES, SIZES
from bpgo.scenes.image.oracle import VALID_RESIDUAL
from bpgo.scenes.image.render import BACKGROUND, RGB, coverage
from bpgo.scenes.video.captions import DIRECTIONS, MOTIONS, MOVES, STILL, parse
from bpgo.scenes.video.render import CELL, DIAMETER, GRID, check_clips

CELLS = GRID * GRID
MOVED = 3
"""Pixels along one axis, from first to last frame, that make a motion."""
STRAYED = 1
"""Pixels along the other axis that it may stray."""
RESTED = 1
"""Pixels along either axis that an object at rest may go."""
JUMP = 2
"""Pixels a frame along an axis from which on an object jumps rather than moves."""
CLEAR = 0.0005
"""Mean squared residual of a cell by which a reading is clearly worse than another: half of what
tells the two closest looks apart."""
HALF_DRAWN = VALID_RESIDUAL**2
"""Mean squared residual at which an object counts half."""

_UNSTATED = -1
# Where the values of shape, colour and size begin among those that `Parsed.value_residual` lists.
_STARTS = (0, len(SHAPES), len(SHAPES) + len(COLOURS))
_NO_MOTION = len(MOTIONS)
"""Index of a path that is none of the motions."""
_ANY_DIRECTION = _NO_MOTION + 1
"""What "moves" asks for."""


@dataclass(frozen=True)
class Parsed:
    """What clips hold, per cell.

    Attributes:
        shape, colour, size: indices [B, 4], -1 where the cell is empty.
        motion: index into MOTIONS [B, 4]; one past the end where the path is none of them.
        places: offset (down, right) in the cell in each frame, [B, 4, F, 2].
        residual: RMS of what the look does not explain in each frame, [B, 4, F].
        empty_residual: mean squared residual over the clip if the cell were empty, [B, 4].
        value_residual: the same with the nearest of the objects that have one shape, colour or
            size, [B, 4, 10].
    """

    shape: Tensor
    colour: Tensor
    size: Tensor
    motion: Tensor
    places: Tensor
    residual: Tensor
    empty_residual: Tensor
    value_residual: Tensor

    @property
    def present(self) -> Tensor:
        """Whether the cell holds an object, [B, 4] bool."""
        return self.shape >= 0


@dataclass(frozen=True)
class Judgement:
    """The oracle's answer, each [B] float32 in [0, 1].

    Attributes:
        soft: share of all the caption's facts met: the count, stated looks and motions.
        graded: the same, each fact by how far it is met: how much better an object with the stated
            look fits the cell than others do, how well it is drawn, how far it goes where it is
            to go, how far the number of objects is off. 1 for a clip that the renderer makes.
        strict: 1 where all are met, else 0.
        objects: share of count and stated looks met.
        motion: share of stated motions met, 1 where the caption states none.
        steadiness: share of steps from frame to frame in which an object is well drawn before and
            after and does not jump; 0 where there is no object.
        first_frame: share of cells in use, there or here, in which the clip starts as the first
            frame and keeps that look; None where no first frames were given.
    """

    soft: Tensor
    graded: Tensor
    strict: Tensor
    objects: Tensor
    motion: Tensor
    steadiness: Tensor
    first_frame: Tensor | None = None


@cache
def _kernels(size: str) -> Tensor:
    """Coverage of the four shapes at one size, [4, 1, d, d]."""
    diameter = DIAMETER[size]
    return torch.stack([torch.from_numpy(coverage(shape, diameter)) for shape in SHAPES])[:, None]


@cache
def _tints() -> Tensor:
    """Colours minus the background, [4, 3]."""
    return torch.tensor([RGB[colour] for colour in COLOURS]) - torch.tensor(BACKGROUND)


def parse_clips(clips: Tensor) -> Parsed:
    """Read clips [B, F, 3, 32, 32] in [0, 1] back into cells; F is 5, or 1 for first frames."""
    batch, frames = clips.shape[:2]
    pixels = clips.detach().to("cpu", torch.float32) - torch.tensor(BACKGROUND)[:, None, None]
    cells = pixels.reshape(batch, frames, 3, GRID, CELL, GRID, CELL)
    cells = cells.permute(0, 3, 5, 1, 2, 4, 6).reshape(batch * CELLS * frames, 3, -1)
    squared = cells.square().sum((1, 2)).reshape(batch, CELLS, frames)
    gain, places = _best_places(cells)  # [4 * B * frames, 2 sizes, 4 colours, 4 shapes]
    gain = gain.reshape(batch, CELLS, frames, -1)
    total, look = gain.sum(2).max(-1)  # over all frames; an empty cell gains nothing
    index = look[:, :, None, None].expand(-1, -1, frames, 1)
    place = places.reshape(batch, CELLS, frames, -1).gather(-1, index).squeeze(-1)
    explained = gain.gather(-1, index).squeeze(-1)
    present = total > 0
    rest = torch.where(present[:, :, None], squared - explained, squared).clamp_min(0)
    size, colour, shape = (
        torch.where(present, part, torch.tensor(-1))
        for part in (look // 16, look // 4 % 4, look % 4)
    )
    path = torch.stack((place // CELL, place % CELL), -1)
    pixels_of_cell = 3 * CELL * CELL
    residual = (rest / pixels_of_cell).sqrt()
    whole = squared.sum(2)
    by_look = ((whole[:, :, None] - gain.sum(2)).clamp_min(0) / (frames * pixels_of_cell)).reshape(
        batch, CELLS, len(SIZES), len(COLOURS), len(SHAPES)
    )
    by_value = [by_look.amin(others) for others in ((2, 3), (2, 4), (3, 4))]
    return Parsed(
        shape,
        colour,
        size,
        _motion(path),
        path,
        residual,
        whole / (frames * pixels_of_cell),
        torch.cat(by_value, -1),
    )


def _best_places(cells: Tensor) -> tuple[Tensor, Tensor]:
    """How much each look explains of cells [N, 3, 16 * 16] at its best place, and that place.

    Returns:
        gain 2 <d, t> - |t|^2 and place (16 * down + right), each [N, 2 sizes, 4 colours, 4 shapes].
    """
    count, tints = len(cells), _tints()
    maps = (tints @ cells).reshape(count * len(COLOURS), 1, CELL, CELL)
    gains, places = [], []
    for size in SIZES:
        kernels = _kernels(size)
        products = F.conv2d(maps, kernels)  # [N * colours, shapes, places, places]
        width = products.shape[-1]
        best, place = products.flatten(2).max(-1)
        norm = tints.square().sum(1)[:, None] * kernels.square().sum((1, 2, 3))
        gains.append(2 * best.reshape(count, len(COLOURS), -1) - norm)
        down, right = place // width, place % width
        places.append((down * CELL + right).reshape(count, len(COLOURS), -1))
    return torch.stack(gains, 1), torch.stack(places, 1)


def _motion(path: Tensor) -> Tensor:
    """Index of the motion of paths [B, 4, F, 2] from first to last frame, [B, 4]."""
    down, right = (path[:, :, -1] - path[:, :, 0]).unbind(-1)
    sideways = (right.abs() >= MOVED) & (down.abs() <= STRAYED)
    upright = (down.abs() >= MOVED) & (right.abs() <= STRAYED)
    motion = torch.full_like(down, _NO_MOTION)
    rules = {
        "left": sideways & (right < 0),
        "right": sideways & (right > 0),
        "up": upright & (down < 0),
        "down": upright & (down > 0),
        "still": (down.abs() <= RESTED) & (right.abs() <= RESTED),
    }
    for name, holds in rules.items():
        motion[holds] = MOTIONS.index(name)
    return motion


@dataclass(frozen=True)
class _Codes:
    """A caption as numbers: per object (shape, colour, size, motion), -1 where unstated."""

    wanted: tuple[tuple[int, int, int, int], ...]
    definite: bool

    @property
    def motions(self) -> int:
        return sum(motion != _UNSTATED for *_, motion in self.wanted)

    @property
    def atoms(self) -> int:
        """Checkable facts: the count, each object's stated looks and motion."""
        return 1 + sum(value != _UNSTATED for values in self.wanted for value in values)


@cache
def _caption_codes(text: str) -> _Codes:
    def index(options: tuple[str, ...], value: str | None) -> int:
        return _UNSTATED if value is None else options.index(value)

    caption = parse(text)
    wanted = tuple(
        (
            index(SHAPES, clause.phrase.shape),
            index(COLOURS, clause.phrase.colour),
            index(SIZES, clause.phrase.size),
            _ANY_DIRECTION if clause.motion == MOVES else index(MOTIONS, clause.motion),
        )
        for clause in caption.clauses
    )
    return _Codes(wanted, caption.definite)


def judge(
    clips: Tensor,
    texts: Sequence[str],
    first_frames: Tensor | None = None,
    parsed: Parsed | None = None,
) -> Judgement:
    """Judge clips [B, 5, 3, 32, 32] in [0, 1] against B captions, and first frames [B, 3, 32, 32].

    Objects are matched with the caption's clauses in the way that meets most facts. The count is
    met by as many objects as the caption names; by more too if it speaks of a first frame ("the").
    `parsed` is what `parse_clips` found in these clips, where it is known: it takes the most time.

    Raises:
        ValueError: shapes or lengths that do not fit.
        CaptionError: a text outside the grammar.
    """
    check_clips(clips.shape, len(texts))
    parsed = parsed or parse_clips(clips)
    codes = [_caption_codes(text) for text in texts]
    looks, motions, graded = (torch.zeros(len(texts)) for _ in range(3))
    for count in sorted({len(code.wanted) for code in codes}):
        rows = torch.tensor([i for i, code in enumerate(codes) if len(code.wanted) == count])
        wanted = torch.tensor([codes[i].wanted for i in rows])
        looks[rows], motions[rows] = _facts_met(parsed, rows, wanted)
        definite = torch.tensor([codes[i].definite for i in rows])
        graded[rows] = _facts_graded(parsed, rows, wanted, definite)
    looks += _count_met(parsed, codes)
    atoms = torch.tensor([float(code.atoms) for code in codes])
    stated = torch.tensor([float(code.motions) for code in codes])
    return Judgement(
        soft=(looks + motions) / atoms,
        graded=graded / atoms,
        strict=(looks + motions == atoms).float(),
        objects=looks / (atoms - stated),
        motion=torch.where(stated > 0, motions / stated.clamp_min(1), torch.ones(())),
        steadiness=_steadiness(parsed),
        first_frame=None if first_frames is None else _agreement(parsed, clips, first_frames),
    )


@cache
def _assignments(count: int) -> Tensor:
    """Ordered choices of ``count`` different cells, [N, count]."""
    return torch.tensor(list(permutations(range(CELLS), count)))


def _facts_met(parsed: Parsed, rows: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Looks and motions met in the best match of clauses [R, count, 4] with cells, each [R]."""
    found = torch.stack((parsed.shape, parsed.colour, parsed.size, parsed.motion), -1)[rows]
    hits = (wanted[:, :, None] == found[:, None]) & (wanted[:, :, None] != _UNSTATED)
    moving = found[:, None, :, 3] < len(DIRECTIONS)
    hits[..., 3] |= (wanted[:, :, None, 3] == _ANY_DIRECTION) & moving
    hits &= parsed.present[rows][:, None, :, None]  # an empty cell meets nothing
    cells = _assignments(wanted.shape[1])  # [N, count]
    slots = torch.arange(wanted.shape[1])
    facts = hits[:, slots, cells].float()  # [R, N, count, 4]
    best = facts.sum((2, 3)).argmax(1)
    chosen = facts[torch.arange(len(rows)), best]
    return chosen[..., :3].sum((1, 2)), chosen[..., 3].sum(1)


def _facts_graded(parsed: Parsed, rows: Tensor, wanted: Tensor, definite: Tensor) -> Tensor:
    """As all facts met, each between 0 and 1: in the best match of clauses [R, count, 4], [R].

    As in the image world's oracle: a cell holds an object as far as one fits better than none and
    is well drawn; the object has a stated look as far as no other look fits better.
    """
    count = wanted.shape[1]
    residual = parsed.value_residual[rows]  # [R, 4, 10]
    best = residual.amin(-1)
    held = ((parsed.empty_residual[rows] - best) / CLEAR).sigmoid()  # [R, 4]
    drawn = 0.5 ** (best / HALF_DRAWN)
    stated = wanted != _UNSTATED
    values = (wanted[..., :3].clamp_min(0) + torch.tensor(_STARTS))[:, :, None]
    found = residual[:, None].expand(-1, count, -1, -1)
    found = found.gather(3, values.expand(-1, -1, CELLS, -1))  # [R, count, 4 cells, 3]
    fits = torch.exp(-(found - best[:, None, :, None]) / CLEAR) * stated[:, :, None, :3]
    ways = _ways(parsed.places[rows])  # [R, 4 cells, motions and any]
    asked = wanted[:, :, None, 3:].clamp_min(0).expand(-1, -1, CELLS, -1)
    goes = ways[:, None].expand(-1, count, -1, -1).gather(3, asked).squeeze(3)
    credit = (fits.sum(-1) + goes * stated[:, :, None, 3]) * (held * drawn)[:, None]
    cells, slots = _assignments(count), torch.arange(count)
    total = credit[:, slots, cells].sum(2).amax(1)
    off = count - held.sum(1)
    off = torch.where(definite, off.clamp_min(0), off.abs())
    well = (held * drawn).sum(1) / held.sum(1).clamp_min(1e-6)
    return total + (1 - off).clamp_min(0) * well


def _ways(places: Tensor) -> Tensor:
    """How far paths [B, 4, F, 2] go each way of MOTIONS, and any direction, [B, 4, 7] in [0, 1].

    A direction: its share of a pixel a frame, less what the path strays. At rest: what is left.
    The place between, no motion, is 0.
    """
    down, right = ((places[:, :, -1] - places[:, :, 0]) / (places.shape[2] - 1)).unbind(-1)
    rest = (1 - torch.maximum(down.abs(), right.abs())).clamp_min(0)
    along = {"left": (-right, down), "right": (right, down), "up": (-down, right)}
    along["down"] = (down, right)
    ways = [
        rest if name == STILL else along[name][0].clamp(0, 1) * (1 - along[name][1].abs()).clamp(0)
        for name in MOTIONS
    ]
    directions = torch.stack([ways[MOTIONS.index(name)] for name in DIRECTIONS]).amax(0)
    return torch.stack([*ways, torch.zeros_like(rest), directions], -1)


def _count_met(parsed: Parsed, codes: list[_Codes]) -> Tensor:
    objects = parsed.present.sum(1)
    named = torch.tensor([len(code.wanted) for code in codes])
    definite = torch.tensor([code.definite for code in codes])
    return ((objects == named) | (definite & (objects > named))).float()


def _steadiness(parsed: Parsed) -> Tensor:
    """Share of an object's steps without a jump, well drawn before and after, [B]."""
    present = parsed.present[:, :, None]
    drawn = parsed.residual < VALID_RESIDUAL
    jump = (parsed.places[:, :, 1:] - parsed.places[:, :, :-1]).abs().amax(-1) >= JUMP
    steady = present & drawn[:, :, 1:] & drawn[:, :, :-1] & ~jump
    steps = present.sum((1, 2)) * steady.shape[2]
    return steady.sum((1, 2)) / steps.clamp_min(1)


def _agreement(parsed: Parsed, clips: Tensor, first_frames: Tensor) -> Tensor:
    """Share of cells in use that start as the first frame's and keep its look, [B]."""
    if tuple(first_frames.shape) != (len(clips), *clips.shape[2:]):
        raise ValueError(
            f"first frames have shape {tuple(first_frames.shape)}, wanted "
            f"{(len(clips), *clips.shape[2:])}"
        )
    given = parse_clips(first_frames[:, None])
    used = given.present | parsed.present
    same = given.present & parsed.present
    for name in ("shape", "colour", "size"):
        same &= getattr(given, name) == getattr(parsed, name)
    same &= (given.places[:, :, 0] - parsed.places[:, :, 0]).abs().amax(-1) <= RESTED
    return (same & used).sum(1) / used.sum(1).clamp_min(1)
