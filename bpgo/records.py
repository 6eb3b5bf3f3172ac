"""What passes between the rooms, with its shapes written once.

Shape letters: P prompts (= groups), G group size, B = P*G samples, T steps, K trained steps,
C H W channels, height, width. Samples are ordered group by group: row `p * G + g`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bpgo.errors import UserError
from bpgo.storage.seals import NUMBER, again, read_sealed, write_sealed

if TYPE_CHECKING:
    import torch
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
class Samples:
    """What a reward judges: B decoded samples and what they were asked to show.

    `pixels` `[B, 3, H, W]`, or clips `[B, F, 3, H, W]`, in [0, 1]; `texts`, B prompts;
    `first_frames` `[B, 3, H, W]` in [0, 1], those the prompts gave (None: not image to video).

    Raises:
        ValueError: if there are not as many of each.
    """

    pixels: Tensor
    texts: list[str]
    first_frames: Tensor | None = None

    def __post_init__(self) -> None:
        """Each sample has its prompt."""
        if len(self.texts) != len(self.pixels):
            raise ValueError(f"{len(self.pixels)} samples but {len(self.texts)} texts")
        if self.first_frames is not None and len(self.first_frames) != len(self.pixels):
            raise ValueError(
                f"{len(self.pixels)} samples but {len(self.first_frames)} first frames"
            )

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: slice) -> Samples:
        first = None if self.first_frames is None else self.first_frames[rows]
        return Samples(self.pixels[rows], self.texts[rows], first)

    def to(self, device: str | torch.device) -> Samples:
        """On another device; the same tensors where they are there already."""
        first = None if self.first_frames is None else self.first_frames.to(device)
        return Samples(self.pixels.to(device), self.texts, first)


@dataclass(frozen=True)
class Plan:
    """How the B samples of one iteration are drawn and trained; an arm makes it.

    - `stochastic` `[B, T]` bool: the steps at which a sample takes the arm's kernel; the others are
      ODE steps.
    - `noise_of` `[B, T+1]`: which sample of its group (0 to G-1) a sample has its start (column 0)
      and its noise at each step (column t+1) from. Samples that share both up to a step are one
      path until then, so a tree is a linear rollout with shared noise.
    - `trained` `[B, K]`: the steps of each sample that are trained, in training order. An arm whose
      samples are noised again trains the noise levels of these steps.
    - `noise_scale` `[T]`: louder noise than the kernel's own, by step; None: as the kernel says.
    - `fresh_of` `[B, K]`: as `noise_of`, for samples that are noised again; None: each its own.
    - `tail`: the noise levels, by number up to T, that the rollout visits at its end, where
      DPM-Solver++ takes over (`bpgo.core.dpm_solver`); None: all, one step after the other. Latents
      of levels that are left out are 0. No step of the tail is stochastic.
    """

    stochastic: Tensor
    noise_of: Tensor
    trained: Tensor
    noise_scale: Tensor | None = None
    fresh_of: Tensor | None = None
    tail: list[int] | None = None

    def part(self, rows: slice | Tensor) -> Plan:
        """The plan of some samples."""
        return replace(
            self,
            stochastic=self.stochastic[rows],
            noise_of=self.noise_of[rows],
            trained=self.trained[rows],
            fresh_of=None if self.fresh_of is None else self.fresh_of[rows],
        )

    def levels(self) -> list[int]:
        """The noise levels that the rollout visits, by number."""
        steps = self.stochastic.shape[1]
        return list(range(steps + 1)) if self.tail is None else [*range(self.tail[0]), *self.tail]


@dataclass(frozen=True)
class Passes:
    """Forward passes of the transformer for one sample in one iteration.

    `rollout`: while it is drawn; `trained`: in the update, with gradient; `others`: in the update,
    without (reference and average policies). Classifier-free guidance doubles each.
    """

    rollout: int
    trained: int
    others: int = 0


@dataclass(frozen=True)
class Rollout:
    """One batch of trajectories.

    `latents` `[B, T+1, ...]` from noise to sample; `log_probs` `[B, T]` under the policy that drew
    them, or one value a latent site `[B, T, *sites]` (0 where a step is deterministic); `sigmas`
    `[T+1]`; `boundary` is the policy's, the noise level between its two experts (None: it has one).
    `noise` `[B, T+1, ...]` is what was drawn: the start, then each step's, on the host; `fresh`
    `[B, K, ...]` what samples are noised with again, where an arm does that. `channel` is the
    latents' channel dimension where log-probabilities are by site. `passes` counts the rows that
    the transformer computed: samples that were still alike are one.
    """

    latents: Tensor
    log_probs: Tensor
    sigmas: Tensor
    boundary: float | None = None
    noise: Tensor | None = None
    fresh: Tensor | None = None
    channel: int | None = None
    passes: int = 0


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

    def save(self, path: Path, of: str = "") -> None:
        """Write as JSON, sealed; `of`: whose it is (`bpgo.config.contents`)."""
        write_sealed(path, asdict(self), of)

    @classmethod
    def load(cls, path: Path, of: str = "") -> Calibration:
        """Read what `save` wrote.

        Raises:
            UserError: if the file is missing, cut, changed, no calibration, or another's than `of`
                (empty: anybody's).
        """
        remedy = again("calibrate")
        numbers = dict.fromkeys(("mean", "std", "minimum"), NUMBER)
        mappings = dict.fromkeys(("prompt_means", "parts", "first_frames"), dict)
        found = read_sealed(path, remedy, of, numbers, mappings)
        known = {each.name for each in fields(cls)}
        if further := sorted(set(found) - known):
            raise UserError(f"{path}: '{further[0]}' is no key of a calibration; {remedy}")
        return cls(**found)


@dataclass(frozen=True)
class GroupRewards:
    """What an arm and its trust rule see of a batch: `rewards` `[P, G]`, and what helps to judge.

    - `first_frame` `[P]`: the text alignment of the given first frame (image to video only).
    - `parts`: of a sum of rewards each part's `[P, G]` by name, on the scale on which they are
      added up; `part_weights`: their weights in the sum.
    - `ambiguity` `[P]`: how open each prompt is, 0 to 1 (NaN where nobody knows).
    - `reference`: diagnostics `[P, G]` by name, given only to a trust rule that names them.
    - `features` `[P, G, ...]`: what an arm observed of the decoded samples (`Arm.observe`).
    - `plan`: how the samples were drawn.
    - `log_probs` `[P, G, T]` of the steps that were drawn, the mean over latent numbers (0 where a
      step is deterministic); None where they are by latent site.
    - `sigmas` `[T+1]`: the rollout's noise levels.
    - `sites`: the shape of the latents without their channels, where log-probabilities are by site.
    """

    rewards: Tensor
    prompt_ids: list[str]
    calibration: Calibration | None = None
    first_frame: Tensor | None = None
    parts: dict[str, Tensor] = field(default_factory=dict)
    part_weights: dict[str, float] = field(default_factory=dict)
    ambiguity: Tensor | None = None
    reference: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None
    plan: Plan | None = None
    log_probs: Tensor | None = None
    sigmas: Tensor | None = None
    sites: tuple[int, ...] | None = None


@dataclass(frozen=True)
class WeightedAdvantage:
    """One term of the objective: `weight * mean(scale * L(advantage))`.

    `advantage` is `[P, G]` over samples, `[P, G, T]` over steps, or `[P, G, *sites]` over latent
    sites, as `over` says. `scale` `[P, G]` weighs the loss of each sample; None: 1 everywhere.
    """

    weight: float
    advantage: Tensor
    over: Literal["sample", "step", "site"] = "sample"
    scale: Tensor | None = None


@dataclass(frozen=True)
class AdvantageResult:
    """An arm's answer: the terms of its objective, and what to log.

    `gate` `[P, G]` is True for the samples that the regulariser holds (None: all). `group_columns`
    maps a name to `[P]` (such as `prior`, `weight`); `scalars` maps a name to a number (such as a
    count of samples that a guard rule touched).
    """

    terms: list[WeightedAdvantage]
    gate: Tensor | None = None
    group_columns: dict[str, Tensor] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
