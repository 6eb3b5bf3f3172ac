"""Control: another rule's mean weight for every group (our control).

w'_i = mean_j w_j over the batch. Range: within the other rule's; its mean is kept. What that rule
gains beyond this it owes to telling groups apart, not to smaller or larger steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.trust.wrapping import Wrapping, WrappingSettings

if TYPE_CHECKING:
    from torch import Generator, Tensor


class ConstantSettings(WrappingSettings):
    """Keys of a rule with `rule: constant`."""

    rule: Literal["constant"] = "constant"


class Constant(Wrapping):
    """Draws nothing."""

    Settings = ConstantSettings

    def changed(
        self,
        weights: Tensor,
        generator: Generator,  # noqa: ARG002
    ) -> Tensor:
        """The mean of all weights, everywhere."""
        return weights.mean().expand(weights.shape).clone()


TRUST = Constant
