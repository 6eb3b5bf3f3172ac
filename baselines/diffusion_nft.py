"""DiffusionNFT (arXiv 2509.16117; NVlabs/DiffusionNFT, `scripts/train_nft_sd3.py`).

Differs from `grpo` in having no ratio: samples of a lagging policy are noised again, and the
velocity is drawn to them as far as their advantage says so, and away from them for the rest.

Shapes: N rows, a row is one sample at one noise level. Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from bpgo.config.fields import Positive
from bpgo.core.arm import Average
from bpgo.core.forward_process import BoundedSettings, ForwardProcess, mean_square, rising

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.core.seen import Seen, StepLoss

OLD = "old"  # the lagging policy
# What the lagging policy keeps of itself, by the published number.
DECAYS = {0: rising(0, 0, 0, 0), 1: rising(0, 0, 0.001, 0.5), 2: rising(75, 0, 0.0075, 0.999)}


class DiffusionNftSettings(BoundedSettings):
    """DiffusionNFT's own choices."""

    beta: Positive  # how far the two sides' velocities lie from the lagging policy's
    decay_type: Annotated[int, Field(ge=0, le=2)]  # of the lagging policy, see `DECAYS`


class DiffusionNft(ForwardProcess):
    """A lagging policy that draws, and a loss with two sides."""

    Settings = DiffusionNftSettings
    settings: DiffusionNftSettings
    draws_with: ClassVar[str | None] = OLD
    compared: ClassVar[tuple[str, ...]] = (OLD,)

    def averages(self) -> dict[str, Average]:
        """The lagging policy, which moves after each iteration."""
        return {OLD: Average(DECAYS[self.settings.decay_type], every="iteration")}

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        """Loss c (r l+ + (1 - r) l-) / beta, c the largest advantage."""
        from bpgo.core.seen import StepLoss

        wanted, beta = self.settings.wanted(advantage), self.settings.beta
        towards, away = sides(seen, beta)
        rows = self.settings.largest * (wanted * towards + (1 - wanted) * away) / beta
        return StepLoss(rows, scalars={"towards": towards.mean(), "away": away.mean()})


def sides(seen: Seen, beta: float) -> tuple[Tensor, Tensor]:
    """l+ and l- `[N]`: how far the samples x_t - t v of two velocities are from the sample x0.

    v+ = v_old + beta (v - v_old), v- = v_old - beta (v - v_old); each by its own mean size.
    """
    old, level = seen.others[OLD], seen.sigma.view(-1, *[1] * (seen.velocity.ndim - 1))
    change = beta * (seen.velocity - old)
    errors = (seen.latents - level * (old + way) - seen.sample for way in (change, -change))
    towards, away = (mean_square(error.flatten(1), of_own_size=True) for error in errors)
    return towards, away


ARM = DiffusionNft
