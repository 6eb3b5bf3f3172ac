"""What passes between the rooms, with its shapes written once.

Shape letters: P prompts (= groups), G group size, B = P*G samples, T steps, K trained steps,
C H W channels, height, width. Samples are ordered group by group: row `p * G + g`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bpgo.errors import UserError
from bpgo.storage.files import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PromptBatch:
    """Prompts with their ids and how ambiguous each is (0 specified, 1 open; NaN if unknown).

    Those of image to video have the files of their first frames too.
    """

    ids: list[str]
    texts: list[str]
    ambiguities: list[float]
    first_frames: list[Path] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | list[int]) -> PromptBatch:
        index = range(len(self))[rows] if isinstance(rows, slice) else rows
        return PromptBatch(
            [self.ids[i] for i in index],
            [self.texts[i] for i in index],
            [self.ambiguities[i] for i in index],
            None if self.first_frames is None else [self.first_frames[i] for i in index],
        )


@dataclass(frozen=True)
class Rollout:
    """One batch of trajectories.

    `latents` `[B, T+1, ...]` from noise to sample, `log_probs` `[B, T]` under the policy that drew
    them (0 where a step is deterministic), `sigmas` `[T+1]`; `boundary` is the policy's, the noise
    level between its two experts (None: it has one).
    """

    latents: Tensor
    log_probs: Tensor
    sigmas: Tensor
    boundary: float | None = None


@dataclass(frozen=True)
class Calibration:
    """The training reward under the base policy, in the reward's own units.

    `mean`, `std` and `minimum` over all samples; `prompt_means` maps a prompt id to the mean
    reward of the base policy's samples for it (the paper's SFT prior). `parts` has `mean` and `std`
    of each reward that a sum of rewards is made of. Image to video: `first_frames` maps a prompt id
    to the reward of its first frame, shown for as long as a clip (the paper's I2V prior).
    """

    mean: float
    std: float
    minimum: float
    prompt_means: dict[str, float] = field(default_factory=dict)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    first_frames: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote; `UserError` if the file is missing or holds other keys."""
        if not Path(path).exists():
            raise UserError(f"calibration file '{path}' is missing: run `calibrate` first")
        try:
            return cls(**read_json(path))
        except (TypeError, ValueError) as error:
            raise UserError(f"calibration file '{path}' is not a calibration: {error}") from None


@dataclass(frozen=True)
class GroupRewards:
    """What an arm sees of a batch: `rewards` `[P, G]` raw, and where its prior may come from.

    `first_frame` `[P]` is the text alignment of the given first frame (image-to-video only).
    """

    rewards: Tensor
    prompt_ids: list[str]
    calibration: Calibration | None = None
    first_frame: Tensor | None = None


@dataclass(frozen=True)
class WeightedAdvantage:
    """One term of the objective: `weight * L(ratio, advantage)`, `advantage` `[P, G]`."""

    weight: float
    advantage: Tensor


@dataclass(frozen=True)
class AdvantageResult:
    """An arm's answer: the terms of its objective, and what to log.

    `group_columns` maps a name to `[P]` (such as `prior`, `weight`); `scalars` maps a name to a
    number (such as a count of samples that a guard rule touched).
    """

    terms: list[WeightedAdvantage]
    group_columns: dict[str, Tensor] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
