"""Trust where an ensemble's samples differ more than its members do (our rule).

In a group, each member m less its own mean over the samples: d_mg. S = variance over the samples of
the members' mean of d (what they agree on); N = mean over the samples of the members' variance of d
(what they dispute; a member's level plays no part, as it moves no ranking). Both are unbiased.

w_i = S / (S + N), 0 where both are 0, divided by the batch's mean. Range [0, P], mean 1; where no
group has a signal, 1 everywhere. Members are the parts of the training reward, whatever their
weights in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.core.trust import Reads, Trust, Trusted, TrustSettings
from bpgo.records import GroupRewards
from bpgo.trust.measures import mean_one, members

if TYPE_CHECKING:
    from torch import Generator, Tensor


class SignalToNoiseSettings(TrustSettings):
    """Keys of a rule with `rule: signal_to_noise`."""

    rule: Literal["signal_to_noise"] = "signal_to_noise"

    def reads(self) -> set[Reads]:
        """The members."""
        return {"members"}


def signal_share(values: Tensor) -> Tensor:
    """S / (S + N) `[P]` of members' rewards `[M, P, G]`, in [0, 1]; 0 in a group of one sample."""
    if values.shape[2] < 2:
        return values.new_zeros(values.shape[1])
    centred = values - values.mean(dim=2, keepdim=True)
    signal = centred.mean(dim=0).var(dim=1)
    noise = centred.var(dim=0).mean(dim=1)
    total = signal + noise
    return (signal / total).where(total > 0, total.new_zeros(()))


class SignalToNoise(Trust):
    """Keeps no state."""

    Settings = SignalToNoiseSettings

    def judge(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> Trusted:
        """Weights `[P]`. Column `signal_share`: S / (S + N).

        Raises:
            UserError: fewer than two members.
        """
        import torch

        share = signal_share(torch.stack(list(members(groups, "signal_to_noise").values())))
        weights = mean_one(share)
        return Trusted(weights, columns={"weight": weights, "signal_share": share})


TRUST = SignalToNoise
