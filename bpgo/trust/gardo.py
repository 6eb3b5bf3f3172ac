"""GARDO's gate (arXiv 2512.24138): the regulariser holds the samples that are uncertain.

Formulas checked against the released code, tinnerhrhe/GARDO scripts/train_sd3_grpo_gardo.py.

1. All samples of the batch are ranked by the training reward and by each auxiliary member, rank 1
   best. U = rank of the training reward - mean rank of the auxiliaries, so U > 0: the training
   reward ranks the sample *worse* than they do.
2. The released code gates large U, which are under-rated samples. GARDO's stated aim is to hold
   those that the training reward over-rates: `sign: over_rated` takes -U.
3. The gate takes U above the 100 (1 - b) percentile of the U >= 0 (linear interpolation, strict).
   b is thus a share of the samples with U >= 0, about b / 2 of the batch.
4. b starts at `share`; it grows by the factor 1 + `step` (shrinks by 1 - `step`) where the mean of
   the U >= 0 is above (below) all of its last `window` values, and stays in [`lowest`, `highest`].
   The first batch only stores its mean.

There are no weights: only the regulariser hears of it (the released code averages it over the gated
samples). GARDO's reset of the reference and its diversity advantage are the arm's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from bpgo.config.fields import Count, Fraction, Name, Positive
from bpgo.core.trust import Effect, Reads, Trust, Trusted, TrustSettings
from bpgo.errors import UserError, suggest
from bpgo.records import GroupRewards
from bpgo.trust.measures import average_ranks, members

if TYPE_CHECKING:
    from torch import Generator, Tensor


class GardoSettings(TrustSettings):
    """Keys of a rule with `rule: gardo`."""

    rule: Literal["gardo"] = "gardo"
    auxiliary: list[Name] = Field(default=[])  # parts of the training reward; none named: all
    # Whose samples are gated: over-rated ones, or those that the released code gates.
    sign: Literal["over_rated", "as_released"] = "over_rated"
    share: Fraction  # b at the start: share of the samples that is gated
    step: Positive  # relative change of b
    lowest: Fraction  # b becomes no less
    highest: Fraction  # b becomes no more
    window: Count  # batches that b's controller looks back on

    @model_validator(mode="after")
    def _in_order(self) -> GardoSettings:
        if not self.lowest <= self.share <= self.highest:
            raise ValueError("share must lie between lowest and highest")
        if self.step >= 1:
            raise ValueError("step must be below 1")
        return self

    def effects(self) -> set[Effect]:
        """A gate."""
        return {"gate"}

    def named_members(self) -> list[str]:
        """The auxiliary ones."""
        return self.auxiliary

    def reads(self) -> set[Reads]:
        """The members."""
        return {"members"}


def rank_uncertainty(main: Tensor, auxiliary: list[Tensor]) -> Tensor:
    """U `[N]` = rank by `main` `[N]` - mean rank by each of `auxiliary`, rank 1 best."""
    ranks = [average_ranks(-values) for values in (main, *auxiliary)]
    return ranks[0] - sum(ranks[1:]) / len(auxiliary)


def gate_threshold(uncertainty: Tensor, share: float) -> Tensor:
    """The 100 (1 - share) percentile of the values that are at least 0."""
    return uncertainty[uncertainty >= 0].quantile(1 - share)


class ShareController:
    """Moves the gated share b with the trend of the mean uncertainty."""

    def __init__(self, settings: GardoSettings) -> None:
        self.settings = settings
        self.share = settings.share
        self.means: list[float] = []

    def update(self, mean: float) -> float:
        """Move on the mean of the U >= 0 of a new batch; the share that this batch uses."""
        settings = self.settings
        if self.means and mean > max(self.means):
            self.share *= 1 + settings.step
        elif self.means and mean < min(self.means):
            self.share *= 1 - settings.step
        self.share = min(max(self.share, settings.lowest), settings.highest)
        self.means = [*self.means, mean][-settings.window :]
        return self.share


class Gardo(Trust):
    """Remembers the share and the last means."""

    Settings = GardoSettings
    settings: GardoSettings

    def __init__(self, settings: GardoSettings) -> None:
        super().__init__(settings)
        self.controller = ShareController(settings)

    def judge(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> Trusted:
        """The gate `[P, G]`. Column `uncertainty`: a group's mean of what is gated by.

        Raises:
            UserError: fewer than two members, or an auxiliary that is none of them.
        """
        parts = members(groups, "gardo")
        chosen = self.settings.auxiliary or list(parts)
        for name in chosen:
            if name not in parts:
                raise UserError(
                    f"trust.auxiliary: '{name}' is no part of the training reward."
                    f"{suggest(name, parts)} Known: {', '.join(parts)}"
                )
        main = groups.rewards.double().reshape(-1)
        found = rank_uncertainty(main, [parts[name].reshape(-1) for name in chosen])
        if self.settings.sign == "over_rated":
            found = -found
        mean = found[found >= 0].mean().item()
        share = self.controller.update(mean)
        gate = (found > gate_threshold(found, share)).reshape(groups.rewards.shape)
        return Trusted(
            gate=gate,
            columns={"uncertainty": found.reshape(groups.rewards.shape).mean(dim=1)},
            scalars={
                "gate_share": share,
                "gated": gate.double().mean().item(),
                "uncertainty": mean,
            },
        )

    def state_dict(self) -> dict[str, Any]:
        """The controller's share and last means."""
        return {"share": self.controller.share, "means": list(self.controller.means)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.controller.share, self.controller.means = state["share"], list(state["means"])


TRUST = Gardo
