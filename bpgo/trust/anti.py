"""Control: another rule's weights mirrored at 1 (our control).

w'_i = max(0, 2 - w_i): whom the rule trusts is distrusted by as much. With weights in
[1 - a, 1 + a], a <= 1, the range is the same and a mean of 1 stays 1; weights above 2 become 0. The
contrast of a rule to its mirror is twice its contrast to no rule, where effects are linear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.trust.wrapping import Wrapping, WrappingSettings

if TYPE_CHECKING:
    from torch import Generator, Tensor


class AntiSettings(WrappingSettings):
    """Keys of a rule with `rule: anti`."""

    rule: Literal["anti"] = "anti"


class Anti(Wrapping):
    """Draws nothing."""

    Settings = AntiSettings

    def changed(
        self,
        weights: Tensor,
        generator: Generator,  # noqa: ARG002
    ) -> Tensor:
        """The mirror image of each weight."""
        return (2 - weights).clamp(min=0)


TRUST = Anti
