"""DiffusionNFT (arXiv 2509.16117; NVlabs/DiffusionNFT, `scripts/train_nft_sd3.py`).

Differs from `grpo` in having no ratio: samples of a lagging policy are noised again, and the
velocity is drawn to them as far as their advantage says so, and away from them for the rest.

Shapes: N rows, a row is one sample at one noise level. Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from bpgo.config.fields import Positive
from bpgo.core.arm import Average
from bpgo.core.forward_process import ForwardProcess, ForwardProcessSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.core.seen import Seen, StepLoss

OLD = "old"  # the lagging policy
# By the published number: the lagging policy is the trained one until so many optimizer steps were
# made; from there on it keeps so much more of itself with each, and this much at most.
DECAYS = {0: (0, 0.0, 0.0), 1: (0, 0.001, 0.5), 2: (75, 0.0075, 0.999)}


class DiffusionNftSettings(ForwardProcessSettings):
    """DiffusionNFT's own choices."""

    beta: Positive  # how far the two sides' velocities lie from the lagging policy's
    decay_type: Literal[0, 1, 2]  # of the lagging policy, see `DECAYS`

    @model_validator(mode="after")
    def _needs_a_clip(self) -> DiffusionNftSettings:
        if self.advantage.clip is None:
            raise ValueError("advantage.clip: the largest advantage is the one with r = 1: set it")
        return self


class DiffusionNft(ForwardProcess):
    """A lagging policy that draws, and a loss with two sides."""

    Settings = DiffusionNftSettings
    settings: DiffusionNftSettings
    draws_with: ClassVar[str | None] = OLD

    def averages(self) -> dict[str, Average]:
        """The lagging policy, which moves after each iteration."""
        start, rate, most = DECAYS[self.settings.decay_type]
        return {OLD: Average(lambda n: min(rate * max(n - start, 0), most), every="iteration")}

    def others(self) -> list[str]:
        """The lagging policy, and the base for the KL term."""
        return [OLD, *super().others()]

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        """Loss c (r l+ + (1 - r) l-) / beta, c the largest advantage."""
        from bpgo.core.seen import StepLoss

        wanted, largest = self.wanted(advantage), self.settings.advantage.clip
        assert largest is not None
        towards, away = sides(seen, self.settings.beta)
        rows = largest * (wanted * towards + (1 - wanted) * away) / self.settings.beta
        return StepLoss(rows, scalars={"towards": towards.mean(), "away": away.mean()})

    def wanted(self, advantage: Tensor) -> Tensor:
        """How far a sample is drawn to: r = (A / c + 1) / 2 in [0, 1], c the largest advantage."""
        assert self.settings.advantage.clip is not None
        return ((advantage / self.settings.advantage.clip + 1) / 2).clamp(0, 1)


def sides(seen: Seen, beta: float) -> tuple[Tensor, Tensor]:
    """l+ and l- `[N]`: how far the two velocities' samples are from the sample.

    v+ = v_old + beta (v - v_old) and v- = v_old - beta (v - v_old).
    """
    old = seen.others[OLD]
    change = beta * (seen.velocity - old)
    return _distance(seen, old + change), _distance(seen, old - change)


def _distance(seen: Seen, velocity: Tensor) -> Tensor:
    """Mean square of x_t - t v - x0, divided by its mean size (no gradient), `[N]`."""
    level = seen.sigma.view(-1, *[1] * (velocity.ndim - 1))
    error = (seen.latents - level * velocity - seen.sample).flatten(1)
    return error.square().mean(1) / error.detach().abs().mean(1).clamp(min=1e-5)


ARM = DiffusionNft
