"""The oracle: reads any image back and says how far it satisfies its caption.

Each cell is compared with every template the renderer can draw there (one batched matrix
product); the nearest one is what the cell holds. The oracle is the truth of the embedded world:
no reward model and no arm sees it in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import torch
from torch import Tensor

from bpgo.scenes.captions import COLOURS, RELATIONS, SHAPES, SIZES, Caption, parse
from bpgo.scenes.image.render import (
    CELL,
    GRID,
    IMAGE_SIZE,
    SceneObject,
    blank,
    draw,
    offsets,
    related,
)

CELLS = GRID * GRID
VALID_RESIDUAL = 0.15
"""An object is well drawn below this RMS residual of its cell (pixel noise of 0.1 passes)."""

CLEAR = 0.001
"""Mean squared residual of a cell by which a reading is clearly worse than another: half of what
tells the two closest objects of different looks apart."""

HALF_DRAWN = VALID_RESIDUAL**2
"""Mean squared residual at which an object counts half."""

_UNSTATED = -1
# Where the values of shape, colour and size begin among those that `Parsed.value_residual` lists.
_STARTS = (0, len(SHAPES), len(SHAPES) + len(COLOURS))


@dataclass(frozen=True)
class Parsed:
    """What images hold: indices per cell [B, 9], -1 where empty; residual RMS per cell [B, 9].

    Mean squared residuals of each cell: `empty_residual` [B, 9] if it were empty, `value_residual`
    [B, 9, 10] of the nearest object with each shape, colour and size.
    """

    shape: Tensor
    colour: Tensor
    size: Tensor
    residual: Tensor
    empty_residual: Tensor
    value_residual: Tensor

    @property
    def present(self) -> Tensor:
        """Whether the cell holds an object, [B, 9] bool."""
        return self.shape >= 0


@dataclass(frozen=True)
class Judgement:
    """The oracle's answer, each [B] float32.

    Attributes:
        soft: share of caption atoms met (count, each object's stated attributes, relation), [0, 1].
        graded: the same, each atom by how far it is met: how much better an object with the stated
            value fits the cell than others do, how well it is drawn, how far the number of objects
            is off, [0, 1]. 1 for an image that the renderer makes.
        strict: 1 where all atoms are met, else 0.
        quality: share of objects well drawn, 0 where there is none.
        artefact: RMS of what no template explains, over the whole image.
    """

    soft: Tensor
    graded: Tensor
    strict: Tensor
    quality: Tensor
    artefact: Tensor


@cache
def _templates() -> tuple[Tensor, Tensor]:
    """Templates [K, 3 * 8 * 8] and their (shape, colour, size) indices [K, 3]; first, empty."""
    images, labels = [blank(CELL, CELL)], [(-1, -1, -1)]
    for shape_index, shape in enumerate(SHAPES):
        for colour_index, colour in enumerate(COLOURS):
            for size_index, size in enumerate(SIZES):
                for top in range(offsets(size)):
                    for left in range(offsets(size)):
                        image = blank(CELL, CELL)
                        draw(image, SceneObject(shape, colour, size, 0, 0, top, left))
                        images.append(image)
                        labels.append((shape_index, colour_index, size_index))
    flat = torch.stack([torch.from_numpy(image).flatten() for image in images])
    return flat, torch.tensor(labels)


def parse_images(images: Tensor) -> Parsed:
    """Read images [B, 3, 24, 24] in [0, 1] back into cells.

    Raises:
        ValueError: another shape.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(
            f"images have shape {tuple(images.shape)}, wanted [B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}]"
        )
    templates, labels = _templates()
    batch = images.shape[0]
    cells = images.detach().to("cpu", torch.float32).reshape(batch, 3, GRID, CELL, GRID, CELL)
    flat = cells.permute(0, 2, 4, 1, 3, 5).reshape(batch * CELLS, -1)
    # |x - t|^2 = |x|^2 - 2 x.t + |t|^2; |x|^2 does not change which template is nearest.
    distances = (templates**2).sum(1) - 2 * flat @ templates.T
    distance, nearest = distances.min(dim=1)

    def mean_squared(distance: Tensor) -> Tensor:
        found = (distance + (flat**2).sum(1)).clamp_min(0) / flat.shape[1]
        return found.reshape(batch, CELLS)

    shape, colour, size = labels[nearest].reshape(batch, CELLS, 3).unbind(-1)
    by_look = _nearest_by_look(distances)
    by_value = [
        mean_squared(each)
        for others in ((2, 3), (1, 3), (1, 2))
        for each in by_look.amin(others).unbind(1)
    ]
    return Parsed(
        shape,
        colour,
        size,
        mean_squared(distance).sqrt(),
        mean_squared(distances[:, 0]),
        torch.stack(by_value, dim=-1),
    )


def _nearest_by_look(distances: Tensor) -> Tensor:
    """The least of the distances [N, K] of all templates by shape, colour and size, [N, 4, 4, 2].

    The templates' order is that of :func:`_templates`.
    """
    places = [offsets(size) ** 2 for size in SIZES]
    by_look = distances[:, 1:].unflatten(1, (len(SHAPES), len(COLOURS), sum(places)))
    return torch.stack([each.amin(-1) for each in by_look.split(places, -1)], -1)


@cache
def _assignments(count: int) -> Tensor:
    """Ordered choices of ``count`` different cells, [N, count]."""
    return torch.tensor(list(permutations(range(CELLS), count)))


@cache
def _relation_table() -> Tensor:
    """Whether two cells stand in each relation, [relations, 9, 9] bool."""
    cells = [divmod(cell, GRID) for cell in range(CELLS)]
    return torch.tensor(
        [[[related(name, a, b) for b in cells] for a in cells] for name in RELATIONS]
    )


@cache
def _caption_codes(text: str) -> tuple[tuple[tuple[int, int, int], ...], int, int]:
    """Per object the wanted (shape, colour, size) indices, the relation's index, the atoms."""
    caption: Caption = parse(text)

    def index(options: tuple[str, ...], value: str | None) -> int:
        return _UNSTATED if value is None else options.index(value)

    wanted = tuple(
        (index(SHAPES, p.shape), index(COLOURS, p.colour), index(SIZES, p.size))
        for p in caption.phrases
    )
    return wanted, index(RELATIONS, caption.relation), caption.atoms


def judge(images: Tensor, texts: Sequence[str]) -> Judgement:
    """Judge images [B, 3, 24, 24] in [0, 1] against B captions.

    Objects are matched with the caption's phrases in the way that meets most atoms.

    Raises:
        ValueError: shapes or lengths that do not fit.
        CaptionError: a text outside the grammar.
    """
    if len(texts) != images.shape[0]:
        raise ValueError(f"{images.shape[0]} images but {len(texts)} captions")
    return judge_parsed(parse_images(images), texts)


def judge_parsed(parsed: Parsed, texts: Sequence[str]) -> Judgement:
    """As :func:`judge`, on images that :func:`parse_images` has read."""
    codes = [_caption_codes(text) for text in texts]
    met, graded = torch.zeros(len(texts)), torch.zeros(len(texts))
    for count in sorted({len(wanted) for wanted, _, _ in codes}):
        rows = [i for i, (wanted, _, _) in enumerate(codes) if len(wanted) == count]
        given = torch.tensor(rows), [codes[i] for i in rows], count
        met[rows], graded[rows] = _atoms_met(parsed, *given), _atoms_graded(parsed, *given)
    atoms = torch.tensor([float(code[2]) for code in codes])
    present = parsed.present
    objects = present.sum(1)
    good = (present & (parsed.residual < VALID_RESIDUAL)).sum(1)
    return Judgement(
        soft=met / atoms,
        graded=graded / atoms,
        strict=(met == atoms).float(),
        quality=good / objects.clamp_min(1),
        artefact=(parsed.residual**2).mean(1).sqrt(),
    )


def _atoms_met(
    parsed: Parsed,
    rows: Tensor,
    codes: list[tuple[tuple[tuple[int, int, int], ...], int, int]],
    count: int,
) -> Tensor:
    """Most atoms met over all ways to match phrases with cells, [len(rows)]."""
    wanted = torch.tensor([code[0] for code in codes])  # [R, count, 3]
    found = torch.stack((parsed.shape, parsed.colour, parsed.size), -1)[rows]  # [R, 9, 3]
    present = parsed.present[rows]
    hits = (wanted[:, :, None] == found[:, None]) & (wanted[:, :, None] != _UNSTATED)
    # An empty cell (-1) never hits.
    total = _best_match(hits.sum(-1).float(), present.float(), codes, count)
    return total + (present.sum(1) == count)


def _atoms_graded(
    parsed: Parsed,
    rows: Tensor,
    codes: list[tuple[tuple[tuple[int, int, int], ...], int, int]],
    count: int,
) -> Tensor:
    """As `_atoms_met`, each atom between 0 and 1.

    A cell holds an object as far as one fits better than the empty cell and is well drawn; the
    object has a stated value as far as none with another value fits better.
    """
    wanted = torch.tensor([code[0] for code in codes])  # [R, count, 3]
    residual = parsed.value_residual[rows]  # [R, 9, 10]
    best = residual.amin(-1)
    better = (parsed.empty_residual[rows] - best) / CLEAR
    drawn = 0.5 ** (best / HALF_DRAWN)
    held = better.sigmoid()  # [R, 9]
    values = (wanted.clamp_min(0) + torch.tensor(_STARTS))[:, :, None].expand(-1, -1, CELLS, -1)
    stated = residual[:, None].expand(-1, count, -1, -1).gather(3, values)  # [R, count, 9, 3]
    fits = torch.exp(-(stated - best[:, None, :, None]) / CLEAR) * (wanted[:, :, None] != _UNSTATED)
    credit = fits.sum(-1) * (held * drawn)[:, None]
    total = _best_match(credit, held * drawn, codes, count)
    number = held.sum(1)
    well = (held * drawn).sum(1) / number.clamp_min(1e-6)
    return total + (1 - (number - count).abs()).clamp_min(0) * well


def _best_match(
    per_cell: Tensor,
    present: Tensor,
    codes: list[tuple[tuple[tuple[int, int, int], ...], int, int]],
    count: int,
) -> Tensor:
    """The most that phrases matched with cells meet [R]: attributes, and the relation.

    `per_cell` [R, count, 9]: what a phrase's object meets in each cell; `present` [R, 9]: how far a
    cell holds an object.
    """
    relation = torch.tensor([code[1] for code in codes])  # [R]
    cells = _assignments(count)  # [N, count]
    total = sum(per_cell[:, slot][:, cells[:, slot]] for slot in range(count))  # [R, N]
    assert isinstance(total, Tensor)
    if count == 2:
        holds = _relation_table()[relation.clamp_min(0)][:, cells[:, 0], cells[:, 1]]
        both = torch.minimum(present[:, cells[:, 0]], present[:, cells[:, 1]])
        total = total + both * (holds & (relation >= 0)[:, None])
    return total.max(dim=1).values
