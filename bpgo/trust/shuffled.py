"""Control: another rule's weights, permuted among the batch's groups (our control).

w'_i = w_pi(i), with a permutation pi drawn for each batch. Range and mean are the other rule's.
What that rule gains beyond this it owes to knowing which groups to trust, not to unequal weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.trust.wrapping import Wrapping, WrappingSettings

if TYPE_CHECKING:
    from torch import Generator, Tensor


class ShuffledSettings(WrappingSettings):
    """Keys of a rule with `rule: shuffled`."""

    rule: Literal["shuffled"] = "shuffled"


class Shuffled(Wrapping):
    """Draws from the generator, once a batch."""

    Settings = ShuffledSettings

    def changed(self, weights: Tensor, generator: Generator) -> Tensor:
        """The same weights in another order of groups."""
        import torch

        return weights[torch.randperm(len(weights), generator=generator).to(weights.device)]


TRUST = Shuffled
