"""Group-relative advantages, with the differences between libraries as settings.

Shapes: P groups, G samples a group, N = samples of all groups. Importing this file does not import
torch. Statistics are taken in float64: a group of equal float32 rewards then has a standard
deviation of exactly 0 and advantages of exactly 0, which float32 does not promise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from bpgo.config.fields import Count, NonNegative, Number, Positive, Strict

if TYPE_CHECKING:
    from torch import Tensor


class AdvantageSettings(Strict):
    """How rewards are normalised inside a group (paper Eq. 1 leaves ddof and eps open)."""

    ddof: Annotated[int, Field(ge=0, le=1)]  # 1: unbiased variance (torch.std), 0: biased (np.std)
    epsilon: Positive  # keeps a std from 0, in reward units
    epsilon_mode: Literal["add", "floor"]  # std + epsilon, or max(std, epsilon)
    # Whose std divides; the mean is always the group's. none: no division (Dr. GRPO).
    scope: Literal["group", "batch", "none"]
    min_group_std: NonNegative  # groups with a smaller std get advantage 0 (TeleBoost)
    trimmed_ratio: Annotated[Number, Field(ge=0, lt=1)]  # lowest share left out (MixGRPO)
    clip: Positive | None  # largest absolute advantage; None: none


def group_advantage(rewards: Tensor, settings: AdvantageSettings) -> Tensor:
    """Advantages `[P, G]` of rewards `[P, G]`: (R - group mean) / std, then clipped (Eq. 1).

    A group of one sample has advantage 0. Non-finite rewards give non-finite advantages in their
    group (with `scope="batch"` in every group): the trainer stops on them.
    """
    values = rewards.double()
    trim = min(int(values.shape[1] * settings.trimmed_ratio), values.shape[1] - 1)
    kept = values.sort(dim=1).values[:, trim:] if trim else values
    std = _std(kept, settings)
    advantage = values - kept.mean(dim=1, keepdim=True)
    if settings.scope != "none":
        whole = _std(values.reshape(1, -1), settings) if settings.scope == "batch" else std
        advantage = advantage / _guarded(whole, settings)
    if settings.min_group_std:
        advantage = advantage * (std >= settings.min_group_std)
    return _clipped(advantage, settings).to(rewards.dtype)


def indexed_advantage(rewards: Tensor, index: Sequence[int], settings: AdvantageSettings) -> Tensor:
    """`group_advantage` `[N]` for groups of unequal size; `index` `[N]` names each row's group."""
    values = rewards.double()
    members: dict[int, list[int]] = {}
    for row, name in enumerate(index):
        members.setdefault(name, []).append(row)
    batch_std = _guarded(_std(values.reshape(1, -1), settings), settings)
    advantage = values.clone()
    for rows in members.values():
        group = values[rows].reshape(1, -1)
        if settings.scope == "batch":
            found = _clipped((group - group.mean()) / batch_std, settings)
        else:
            found = group_advantage(group, settings)
        advantage[rows] = found.reshape(-1)
    return advantage.to(rewards.dtype)


def several_rewards_advantage(
    rewards: Mapping[str, Tensor],
    weights: Mapping[str, float],
    settings: AdvantageSettings,
    combine: Literal["rewards", "advantages", "gdpo"] = "advantages",
) -> Tensor:
    """One advantage `[P, G]` from several rewards, each `[P, G]`, with a weight each.

    `rewards`: the weighted sum of rewards is normalised (Flow-GRPO, Flow-Factory); `advantages`:
    each is normalised, then the weighted sum taken (DanceGRPO with weights 1, MixGRPO); `gdpo`:
    that sum, normalised once more over the batch (GDPO, arXiv 2601.05242). Clipped once, last.
    """
    unclipped = settings.model_copy(update={"clip": None})
    if combine == "rewards":
        each = [weights[name] * value.double() for name, value in rewards.items()]
        return group_advantage(reduce(add, each), settings)
    total = reduce(
        add,
        [
            weights[name] * group_advantage(value.double(), unclipped)
            for name, value in rewards.items()
        ],
    )
    if combine == "gdpo":  # a group without differences stays at exactly 0
        total = batch_normalised(total, settings) * total.ne(0).any(dim=1, keepdim=True)
    return _clipped(total, settings)


def batch_normalised(values: Tensor, settings: AdvantageSettings) -> Tensor:
    """(A - mean) / std over all values, of any shape; not clipped."""
    std = _guarded(_std(values.reshape(1, -1), settings), settings)
    return (values - values.mean()) / std.reshape(())


def best_and_worst(advantages: Tensor, count: int) -> Tensor:
    """Advantages `[P, G]` of which each group keeps `count`: half the highest, half the lowest.

    The rest is 0, and those kept are multiplied by G / count, so that a mean over all samples is
    the mean over those kept (DanceGRPO's HunyuanVideo script). Of equal ones the first count as
    lower. An even `count`, G at most.
    """
    size, half = advantages.shape[1], count // 2
    order = advantages.argsort(dim=1, stable=True)
    chosen = order.roll(half, dims=1)[:, :count]  # the highest half, then the lowest
    kept = advantages.gather(1, chosen) * (size / count)
    return advantages.new_zeros(advantages.shape).scatter(1, chosen, kept)


def selection_advantage(
    rewards: Tensor, rule: Literal["best", "best_and_worst", "reward"]
) -> Tensor:
    """Advantages `[P, G]` without normalisation (Flow-GRPO's SFT, online DPO and RWR baselines).

    `best`: 1 for the group's best samples, else 0; `best_and_worst`: 1 for the first best, -1 for
    the first worst, else 0 (in a constant group the second counts as best, the first as worst);
    `reward`: the reward itself.
    """
    if rule == "reward":
        return rewards.clone()
    if rule == "best":
        return (rewards == rewards.amax(dim=1, keepdim=True)).to(rewards.dtype)
    best, worst = rewards.argmax(dim=1, keepdim=True), rewards.argmin(dim=1, keepdim=True)
    tied = best == worst
    best, worst = best.masked_fill(tied, 1), worst.masked_fill(tied, 0)
    ones = rewards.new_ones(best.shape)
    return rewards.new_zeros(rewards.shape).scatter(1, best, ones).scatter(1, worst, -ones)


class TrackerSettings(Strict):
    """What DDPO remembers of each prompt."""

    buffer_size: Count  # so many of its last rewards are kept
    min_count: Count  # with fewer, the batch's statistics serve

    @model_validator(mode="after")
    def _can_be_reached(self) -> TrackerSettings:
        if self.min_count > self.buffer_size:
            raise ValueError(
                f"min_count: {self.min_count} is more than buffer_size, which is"
                f" {self.buffer_size}: no prompt would ever have so many rewards"
            )
        return self


class PromptTracker:
    """Per-prompt reward statistics over iterations (DDPO, arXiv 2305.13301 section 5).

    A prompt's mean and std come from its last `buffer_size` rewards; while it has seen fewer than
    `min_count`, the batch's serve instead.
    """

    def __init__(self, buffer_size: int, min_count: int, settings: AdvantageSettings) -> None:
        self.buffer_size, self.min_count, self.settings = buffer_size, min_count, settings
        self.rewards: dict[str, deque[float]] = {}

    def advantage(self, rewards: Tensor, prompt_ids: Sequence[str]) -> Tensor:
        """Record rewards `[N]` of N samples and return their advantages `[N]`."""
        for prompt, reward in zip(prompt_ids, rewards.tolist(), strict=True):
            recent = self.rewards.setdefault(prompt, deque(maxlen=self.buffer_size))
            recent.append(reward)
        values = rewards.double()
        found = []
        for row, prompt in enumerate(prompt_ids):
            recent = self.rewards[prompt]
            known = len(recent) >= self.min_count
            sample = values.new_tensor(list(recent)) if known else values
            std = _guarded(_std(sample.reshape(1, -1), self.settings), self.settings)
            found.append(((values[row] - sample.mean()) / std).reshape(()))
        advantage = values.new_tensor([value.item() for value in found])
        return _clipped(advantage, self.settings).to(rewards.dtype)

    def state_dict(self) -> dict[str, list[float]]:
        """Each prompt's last rewards."""
        return {prompt: list(recent) for prompt, recent in self.rewards.items()}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore `state_dict`."""
        self.rewards = {name: deque(recent, self.buffer_size) for name, recent in state.items()}


def _std(values: Tensor, settings: AdvantageSettings) -> Tensor:
    """Standard deviation along dimension 1; 0 for a single value, whatever ddof says."""
    return values.std(dim=1, keepdim=True, correction=min(settings.ddof, values.shape[1] - 1))


def _guarded(std: Tensor, settings: AdvantageSettings) -> Tensor:
    """A divisor above 0."""
    if settings.epsilon_mode == "floor":
        return std.clamp(min=settings.epsilon)
    return std + settings.epsilon


def _clipped(advantage: Tensor, settings: AdvantageSettings) -> Tensor:
    return advantage if settings.clip is None else advantage.clamp(-settings.clip, settings.clip)
