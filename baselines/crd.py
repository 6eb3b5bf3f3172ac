"""CRD (arXiv 2603.14128; X-GenGroup/Flow-Factory, `src/flow_factory/trainers/crd.py`).

Differs from `grpo` in an implicit reward, how much better than a lagging policy the policy matches
a sample: within a group it is to differ as the advantages do.

Shapes: N rows, a row is one sample at one noise level. Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from bpgo.config.fields import Positive
from bpgo.core.arm import Average
from bpgo.core.forward_process import BoundedSettings, ForwardProcess, matching_error, rising

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.core.seen import Seen, StepLoss

OLD, SAMPLER = "old", "sampler"  # what the policy is compared with, and what draws
DECAYS = {OLD: rising(0, 0.25, 0.005, 0.999), SAMPLER: rising(75, 0, 0.0075, 0.999)}


class CrdSettings(BoundedSettings):
    """CRD's own choices."""

    beta: Positive  # scale of the implicit reward
    form: Literal["mse", "bce"]  # of the distance of the two rewards
    of_own_size: bool  # matching errors are divided by their mean size
    centre: Literal["mean", "softmax", "released_hard"]  # what is subtracted, see `Crd.shares`
    temperature: Positive  # of the softmax that centres
    adaptive_kl: bool  # the regulariser grows with the reward, from 1e-4 to kl_weight


class Crd(ForwardProcess):
    """An implicit reward, centred within its group."""

    Settings = CrdSettings
    settings: CrdSettings
    draws_with: ClassVar[str | None] = SAMPLER
    compared: ClassVar[tuple[str, ...]] = (OLD,)
    whole_groups: ClassVar[bool] = True

    def averages(self) -> dict[str, Average]:
        """Both lag, and move after each iteration."""
        return {name: Average(decay, every="iteration") for name, decay in DECAYS.items()}

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        """Distance of centred beta R and r, times c / beta, with c the largest advantage."""
        from bpgo.core.seen import StepLoss

        chosen, wanted = self.settings, seen.by_group(self.settings.wanted(advantage))
        both, shares = (chosen.beta * self.implicit_reward(seen), wanted), self.shares(wanted)
        mine, aim = (v - (shares * v.detach()).sum(-1, keepdim=True) for v in both)
        apart = (mine - aim).square()
        if chosen.form == "bce":  # cross entropy of two sigmoids
            apart = mine.logaddexp(0 * mine) - aim.sigmoid() * mine
        rows = apart.mean(0) * chosen.largest / chosen.beta
        least = 1e-4 / chosen.kl_weight if chosen.adaptive_kl and chosen.kl_weight else 1.0
        return StepLoss(rows.flatten(), held=(least + wanted * (1 - least)).flatten())

    def implicit_reward(self, seen: Seen) -> Tensor:
        """R = l_old - l `[P, G]`, the matching errors of the lagging policy and of the policy."""
        old = matching_error(seen, seen.others[OLD], self.settings.of_own_size)
        return seen.by_group(old - matching_error(seen, seen.velocity, self.settings.of_own_size))

    def shares(self, wanted: Tensor) -> Tensor:
        """Each sample's share of the means that are subtracted in its group, `[1 or 2, P, G]`."""
        import torch

        even, by = 0 * wanted, wanted / self.settings.temperature
        above = wanted.masked_fill(wanted <= 0, -1e9)  # what the released temperature 0 does
        scores = {"mean": [even], "softmax": [by, -by], "released_hard": [above, even]}
        return torch.stack(scores[self.settings.centre]).softmax(-1)


ARM = Crd
