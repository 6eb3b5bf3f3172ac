"""The worlds of the embedded images: what their annotators like, and what their rewards are taught.

Two things decide what a reward model knows of an open caption. Annotators with **taste** label its
pairs by what they like, so the reward ranks samples by taste: it is unreliable there. A **reduced
contrastive weight** teaches the model less of what such a caption says, so the reward is low there:
a rule that reads the mean of a group sees it. The four worlds are the four combinations::

                     open captions as high as others     open captions lower
    no taste         clear                               control
    taste            hidden                              ambiguous

Rewards are unreliable where taste is, and visible to RAS where open captions are lower. A model
learns taste only where contrast is reduced: at full weight the contrastive loss teaches alignment
whatever annotators say. So ``hidden`` ranks the samples of a prompt as ``ambiguous`` does, and its
level by ambiguity is put right afterwards (`bpgo.scenes.image.level`).

This module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bpgo.errors import UserError, suggest

WorldName = Literal["ambiguous", "control", "hidden", "clear"]
Pool = Literal["a", "b", "c"]
POOLS: tuple[Pool, ...] = get_args(Pool)

TRAINING_POOL: Pool = "a"
MEMBERS = 4
"""Reward models of the training pool in a world with an ensemble; the first one trains policies."""

LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class World:
    """One cell of the table above.

    Attributes:
        name: as files and configurations have it.
        taste: whether annotators follow taste where a caption is open.
        reduced_contrast: whether such a caption counts less in the contrastive loss.
        full_level: whether open captions are as high as if they had counted in full, though they
            did not.
        ensemble: whether the training pool has MEMBERS reward models instead of one.
    """

    name: WorldName
    taste: bool
    reduced_contrast: bool
    ensemble: bool = False
    full_level: bool = False

    def models(self) -> list[tuple[Pool, int]]:
        """Pool and member of every reward model."""
        others = range(2, MEMBERS + 1) if self.ensemble else ()
        return [*((pool, 1) for pool in POOLS), *((TRAINING_POOL, member) for member in others)]


WORLDS: dict[WorldName, World] = {
    world.name: world
    for world in (
        World("ambiguous", taste=True, reduced_contrast=True, ensemble=True),
        World("control", taste=False, reduced_contrast=True),
        World("hidden", taste=True, reduced_contrast=True, full_level=True),
        World("clear", taste=False, reduced_contrast=False, ensemble=True),
    )
}


def world_of(name: str) -> World:
    """The world of that name; `UserError` if there is none."""
    for world in WORLDS.values():
        if world.name == name:
            return world
    raise UserError(
        f"world: '{name}' is unknown.{suggest(name, WORLDS)} Known: {', '.join(WORLDS)}"
    )


def check_seed(seed: int) -> int:
    """The seed of a set of weights; `UserError` if it is out of range."""
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"seed: {seed} is not allowed: it must be from 0 to {LARGEST_SEED}")
    return seed
