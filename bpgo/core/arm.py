"""An arm: an algorithm plus its settings. What it may decide, and nothing else.

An algorithm subclasses one of two families, which fix the estimator: `bpgo.core.policy_gradient`
(ratios of stored SDE steps) or `bpgo.core.forward_process` (samples that are noised again). What
both share is here.

Shapes: P groups, G samples a group, B = P * G, T steps, K trained steps a sample, N rows.
Importing this file does not import torch, so settings can be checked without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from bpgo.config.fields import NonNegative, Strict, Title
from bpgo.config.settings import RolloutSettings
from bpgo.core.advantage import AdvantageSettings, group_advantage
from bpgo.core.trust import AnyTrustSettings, Effect, Trust, make_trust
from bpgo.records import AdvantageResult, GroupRewards, Passes, Plan, WeightedAdvantage

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bpgo.core.seen import Seen, StepLoss

TRUST_REGION = ("clip_range", "mask_threshold")  # what holds a ratio, by an arm's key
BASE = "base"  # the untrained policy among the further policies that a loss sees


class ArmSettings(Strict):
    """What every arm states; a family and an algorithm's file add keys by a subclass."""

    algorithm: str  # key of bpgo.registry.ARMS
    title: Title  # name in tables and figures
    source: str = ""  # paper and code
    shared_initial_noise: bool  # whether a group's samples start from the same noise
    advantage: AdvantageSettings  # how rewards become advantages
    kl_weight: NonNegative  # beta; 0: no reference policy is run
    trust: AnyTrustSettings | None = None  # how far groups are trusted; None: alike

    @model_validator(mode="before")
    @classmethod
    def _without(cls, values: Any) -> Any:
        """`key: null` leaves out what the file's `base` states and this algorithm does not have."""
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if v is not None or k in cls.model_fields}


@dataclass(frozen=True)
class Average:
    """A further policy: a moving average of the trained weights.

    It moves after every iteration or after every optimizer step, and keeps the share `decay(n)` of
    itself, n being the optimizer steps made until then. It starts as the base policy.
    """

    decay: Callable[[int], float]
    every: Literal["iteration", "step"] = "iteration"


class Arm:
    """What an arm decides, with what every algorithm shares as defaults."""

    Settings: ClassVar[type[ArmSettings]] = ArmSettings
    draws_with: ClassVar[str | None] = None  # the average that draws the samples; None: the policy
    noised_again: ClassVar[bool] = (
        False  # trained points are samples noised again, not stored steps
    )
    idle_without_advantage: ClassVar[bool] = True  # advantage 0 means no gradient but the KL's
    whole_groups: ClassVar[bool] = False  # the loss compares the samples of a group
    has_ratio: ClassVar[bool] = False  # the loss compares the policy with the one that drew
    per_site: ClassVar[bool] = False  # log-probabilities by latent site: summed over channels only

    def __init__(self, settings: ArmSettings) -> None:
        self.settings = settings
        self.trust: Trust | None = make_trust(settings.trust) if settings.trust else None

    def check(self, sizes: RolloutSettings) -> None:
        """`UserError` that starts with the arm's key where its settings do not fit."""
        self.passes(sizes)  # an arm without anything to train says so

    def refuses_reward(self, parts: int) -> str | None:  # noqa: ARG002
        """Why a training reward of so many parts (0: it is no sum) is none for it; None: it is."""
        return None

    def refuses(self, effect: Effect, parts: int) -> str | None:  # noqa: ARG002
        """Why a trust rule with this effect has no meaning here; None: it has one.

        `parts` is how many rewards the training reward is the sum of (0: it is no sum).
        """
        if effect == "gate" and not self.settings.kl_weight:
            return "kl_weight is 0, so there is no regulariser to gate; set it above 0"
        return None

    @property
    def kernel(self) -> str:
        """Of the stochastic steps; `ode` where there are none."""
        return "ode"

    @property
    def noise_level(self) -> float:
        """The kernel's eta."""
        return 0.0

    @property
    def mixes_steps(self) -> bool:
        """Whether samples of one trained column are at different steps."""
        return False

    @property
    def leaves_out_samples(self) -> bool:
        """Whether samples of a group may have advantage 0 by design, and cost no forward pass."""
        return False

    def fewest_trained(self, sizes: RolloutSettings) -> int:
        """The smallest K of any iteration."""
        return self.trained_count(sizes)

    def averages(self) -> dict[str, Average]:
        """Further policies that are kept, by name."""
        return {}

    def others(self) -> list[str]:
        """The further policies whose velocity the update needs; `base` is the untrained one."""
        return [BASE] if self.settings.kl_weight else []

    def stochastic_steps(
        self,
        sizes: RolloutSettings,
        iteration: int,  # noqa: ARG002 (the same in each, for most)
        generator: Generator,  # noqa: ARG002
    ) -> list[int]:
        """The steps that have noise in this iteration, for all samples alike."""
        return list(range(sizes.steps - sizes.deterministic_tail))

    def trainable(self, sizes: RolloutSettings, stochastic: list[int]) -> list[int]:  # noqa: ARG002
        """The steps that may be trained, of which each sample trains K."""
        return stochastic

    def trained_count(self, sizes: RolloutSettings) -> int:
        """K, the trained steps of each sample."""
        raise NotImplementedError

    def trained_steps(self, candidates: list[int], batch: int, generator: Generator) -> Tensor:
        """Which of the candidate steps each sample trains `[B, K]`, in training order."""
        raise NotImplementedError

    def noise_of(self, sizes: RolloutSettings) -> list[list[int]]:
        """Whose noise each sample of a group has `[G][T+1]` (see `bpgo.records.Plan`)."""
        own = [[sample] * (sizes.steps + 1) for sample in range(sizes.group_size)]
        if self.settings.shared_initial_noise:
            for row in own:
                row[0] = 0
        return own

    def plan(self, sizes: RolloutSettings, iteration: int, generator: Generator) -> Plan:
        """How the batch of one iteration is drawn and trained.

        Arms that draw the same numbers from `generator` plan alike, which pairs them.
        """
        steps = self.stochastic_steps(sizes, iteration, generator)
        batch = sizes.prompts_per_iteration * sizes.group_size
        trained = self.trained_steps(self.trainable(sizes, steps), batch, generator)
        return make_plan(sizes, steps, self.noise_of(sizes), trained)

    def passes(self, sizes: RolloutSettings) -> Passes:
        """The forward passes that one sample takes in an iteration.

        Groups without any advantage are left out of an update, so it may take less.
        """
        trained = self.trained_count(sizes)
        return Passes(sizes.steps, trained, trained * len(self.others()))

    def observe(self, samples: Tensor) -> Tensor | None:  # noqa: ARG002
        """What the arm wants to keep of decoded samples `[b, ...]`: `[b, ...]`, or None."""
        return None

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        """Rewards `[P, G]` to advantages: most algorithms' whole difference lies here."""
        return WeightedAdvantage(1.0, group_advantage(groups.rewards, self.settings.advantage))

    def advantages(self, groups: GroupRewards, generator: Generator) -> AdvantageResult:
        """The terms of the objective for one batch of groups, with the trust rule's say.

        `generator` is the arm's own: what it draws shifts no other random number of the run.
        """
        if self.trust is None:
            return AdvantageResult([self.advantage(groups)])
        found = self.trust.judge(groups, generator)
        given = groups if found.rewards is None else _with_rewards(groups, found.rewards)
        terms = [self.weighed(self._in_dtype_of(groups, given), found.weights)]
        for term in found.terms:
            other = self._in_dtype_of(groups, _with_rewards(groups, term.rewards))
            terms.append(self.weighed(replace(other, weight=term.weight), term.scale))
        return AdvantageResult(terms, found.gate, found.columns, found.scalars)

    def _in_dtype_of(self, groups: GroupRewards, given: GroupRewards) -> WeightedAdvantage:
        """Advantages of other rewards; a rule's are float64."""
        found = self.advantage(given)
        return replace(found, advantage=found.advantage.to(groups.rewards.dtype))

    def weighed(self, term: WeightedAdvantage, weights: Tensor | None) -> WeightedAdvantage:
        """A term whose samples' losses count `weights` `[P]` or `[P, G]` times."""
        if weights is None:
            return term
        advantage = term.advantage
        scale = weights.to(advantage.dtype).view(len(weights), -1)
        return replace(term, scale=scale.expand(advantage.shape[:2]))

    def loss(self, seen: Seen, advantage: Tensor) -> StepLoss:
        """The loss of N trained points for their advantages `[N]` (or `[N, *sites]`)."""
        raise NotImplementedError

    def regulariser(self, seen: Seen) -> Tensor:
        """What keeps the policy near the base, `[N]`; asked for where `kl_weight` is above 0."""
        raise NotImplementedError

    def pull(self, seen: Seen) -> Tensor | None:  # noqa: ARG002
        """What else draws the policy somewhere, with its own weight in it, `[N]`; None: nothing."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What the arm remembers between iterations, as JSON takes it."""
        return {"trust": self.trust.state_dict()} if self.trust else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; `ValueError` for another arm's."""
        if set(state) != ({"trust"} if self.trust else set()):
            raise ValueError(f"{type(self).__name__} has another state than {sorted(state)}")
        if self.trust:
            self.trust.load_state_dict(state["trust"])


def make_plan(
    sizes: RolloutSettings, stochastic: list[int], noise_of: list[list[int]], trained: Tensor
) -> Plan:
    """A plan that is the same for all groups: stochastic steps, and whose noise `[G][T+1]`."""
    import torch

    batch = sizes.prompts_per_iteration * sizes.group_size
    noisy = torch.zeros(batch, sizes.steps, dtype=torch.bool)
    noisy[:, stochastic] = True
    return Plan(noisy, torch.tensor(noise_of).repeat(sizes.prompts_per_iteration, 1), trained)


def _with_rewards(groups: GroupRewards, rewards: Tensor) -> GroupRewards:
    """The same groups with other rewards: parts of a sum no longer add up to them."""
    return replace(groups, rewards=rewards, parts={}, part_weights={})


def idle_settings(arm: Arm, optimizer_steps: int) -> list[str]:
    """A line for each setting that cannot act in a run of so many steps an iteration."""
    if optimizer_steps > 1 or not arm.has_ratio:
        return []
    held = {key: getattr(arm.settings, key, None) for key in TRUST_REGION}
    return [
        f"arms.{key} {value:g} cannot act: with training.optimizer_steps 1 the policy that is"
        " trained is the one that drew the samples, and every ratio is 1"
        for key, value in held.items()
        if value is not None
    ]
