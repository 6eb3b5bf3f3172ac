"""An arm: an algorithm plus its settings. What it may decide, and nothing else.

Shapes: P groups, G samples a group, B = P * G, T steps, K trained steps a sample, N rows.
Importing this file does not import torch, so settings can be checked without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from bpgo.core.advantage import AdvantageSettings, group_advantage
from bpgo.core.trust import AnyTrustSettings
from bpgo.records import AdvantageResult, GroupRewards, WeightedAdvantage
from bpgo.settings import Fraction, NonNegative, Positive, Strict

if TYPE_CHECKING:
    from torch import Generator, Tensor


class ArmSettings(Strict):
    """What every arm states; an algorithm's file adds keys of its own by a subclass."""

    algorithm: str  # key of bpgo.registry.ARMS
    title: str  # name in tables and figures
    source: str = ""  # paper and code
    kernel: Literal["flow", "dance", "cps", "wan"]
    noise_level: Positive  # eta
    shared_initial_noise: bool  # whether a group's samples start from the same noise
    trained_fraction: Fraction  # share of the stochastic steps that is trained
    step_selection: Literal["shared", "per_sample", "all"]  # the same steps for all, or own ones
    advantage: AdvantageSettings
    clip_range: Positive  # of the ratio
    kl_weight: NonNegative = 0.0  # beta; 0: no reference policy is run
    kl_form: Literal["flow_grpo", "gaussian", "velocity"] = "flow_grpo"
    trust: AnyTrustSettings | None = None  # a rule of bpgo.registry.TRUST

    @model_validator(mode="after")
    def _all_means_all(self) -> ArmSettings:
        if self.step_selection == "all" and self.trained_fraction != 1:
            raise ValueError("step_selection 'all' trains every step: set trained_fraction to 1.0")
        return self


class Arm:
    """GRPO; a subclass overrides only what its algorithm changes."""

    Settings: ClassVar[type[ArmSettings]] = ArmSettings

    def __init__(self, settings: ArmSettings) -> None:
        self.settings = settings

    def advantages(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (GRPO draws nothing)
    ) -> AdvantageResult:
        """The terms of the objective for one batch of groups.

        `generator` is the arm's own: what it draws shifts no other random number of the run.
        """
        advantage = group_advantage(groups.rewards, self.settings.advantage)
        return AdvantageResult([WeightedAdvantage(1.0, advantage)])

    def trained_steps(
        self, stochastic_steps: Sequence[int], batch: int, generator: Generator
    ) -> Tensor:
        """Which steps each sample trains: step numbers `[B, K]`, in training order.

        K = max(1, int(len(stochastic_steps) * trained_fraction)). `shared`: one random choice for
        the batch; `per_sample`: one each; `all`: every step in order. Every selection draws the
        same numbers from `generator`, so arms with the same selection train the same steps.

        Raises:
            ValueError: if there is no stochastic step.
        """
        import torch

        count = len(stochastic_steps)
        if count == 0:
            raise ValueError("no stochastic step to train")
        steps = torch.tensor(list(stochastic_steps))
        order = torch.rand(batch, count, generator=generator).argsort(dim=1)
        if self.settings.step_selection == "all":
            order = torch.arange(count).expand(batch, -1)
        elif self.settings.step_selection == "shared":
            order = order[:1].expand(batch, -1)
        return steps[order[:, : max(1, int(count * self.settings.trained_fraction))]]

    def surrogate(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        """Loss `[N]` of ratios `[N]` and advantages `[N]`."""
        from bpgo.core.loss import clipped_surrogate

        return clipped_surrogate(ratio, advantage, self.settings.clip_range)

    def state_dict(self) -> dict[str, Any]:
        """What the arm remembers between iterations, as JSON takes it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but got {sorted(state)}")
