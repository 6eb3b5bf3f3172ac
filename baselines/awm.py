"""AWM (arXiv 2509.25050; scxue/advantage_weighted_matching, `scripts/train_sd3_awm.py`).

Differs from `grpo` in its likelihood: how well the policy's velocity matches that of a sample that
was noised again. A fast average of the policy holds it beside the base policy.

Shapes: N rows, a row is one sample at one noise level. Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from bpgo.config.fields import NonNegative, Positive
from bpgo.core.arm import Average
from bpgo.core.forward_process import BoundedSettings, ForwardProcess, matching_error, rising

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.core.seen import Seen, StepLoss

OLD, FAST = "old", "fast"  # the policy that drew the samples, and the one that pulls


class AwmSettings(BoundedSettings):
    """AWM's own choices."""

    weighting: Literal["uniform", "t", "t2", "ghuber"]  # of the error, see `Awm.log_prob`
    ghuber_power: Positive  # p, where the weighting is ghuber
    advantage_max: Positive  # what the largest advantage counts
    clip_range: Positive  # the ratio may differ from 1 by so much
    pull_weight: NonNegative  # of the squared distance to the fast average; 0: off


class Awm(ForwardProcess):
    """A clipped surrogate on a likelihood of its own."""

    Settings = AwmSettings
    settings: AwmSettings
    has_ratio: ClassVar[bool] = True

    def averages(self) -> dict[str, Average]:
        """The policy as it was when it drew, and one that keeps min(0.001 n, 0.3) of itself."""
        decays = {OLD: rising(0, 0, 0, 0), FAST: rising(0, 0, 0.001, 0.3)}
        return {name: Average(decay, every="iteration") for name, decay in decays.items()}

    def others(self) -> list[str]:
        """The policy that drew, the one that pulls, and the base for the regulariser."""
        return [OLD, *([FAST] if self.settings.pull_weight else []), *super().others()]

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        """max(-A r, -A clip(r, 1 - c, 1 + c)), r the ratio of the two pseudo-likelihoods."""
        from bpgo.core import loss
        from bpgo.core.seen import StepLoss

        chosen = self.settings
        ratio = loss.ratio(*(self.log_prob(seen, v) for v in (seen.velocity, seen.others[OLD])))
        wanted = advantage / chosen.largest * chosen.advantage_max
        rows = loss.clipped_surrogate(ratio, wanted, chosen.clip_range)
        return StepLoss(rows, ratio, loss.outside(ratio, chosen.clip_range))

    def log_prob(self, seen: Seen, velocity: Tensor) -> Tensor:
        """Pseudo-log-likelihood `[N]`: minus the weighted mean square error l of the velocity.

        Weighted l, l t, l t^2; or ((l + e)^p - e^p) t / p with e = 1e-10 (`ghuber`).
        """
        error, form = matching_error(seen, velocity), self.settings.weighting
        if form == "ghuber":
            power = self.settings.ghuber_power
            return -((error + 1e-10) ** power - 1e-10**power) * seen.sigma / power
        return -error * seen.sigma ** {"uniform": 0, "t": 1, "t2": 2}[form]

    def pull(self, seen: Seen) -> Tensor | None:
        """The weighted squared distance to the fast average."""
        weight = self.settings.pull_weight
        return weight * self.distance(seen, FAST) if weight else None


ARM = Awm
