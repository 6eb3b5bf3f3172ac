"""What a trust rule sees of stored groups: the records that it sees in training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bpgo.config.offline import members_of
from bpgo.config.settings import Settings
from bpgo.core.trust import TrustSettings
from bpgo.records import Calibration, GroupRewards
from bpgo.rewards.weighted_sum import WeightedSumSettings, scaled, weighted_sum
from bpgo.steps.group_table import Batch


@dataclass(frozen=True)
class Seen:
    """The groups of one stream, an entry an iteration.

    `training` has the training reward. `summed` has the mean of the members instead, for rules that
    make rewards of members where the training reward is no sum (None: it is one, or there are no
    members). `scores` are all rewards by name, `[P, G]` an iteration.
    """

    training: list[GroupRewards]
    summed: list[GroupRewards] | None
    scores: list[dict[str, Tensor]] = field(repr=False)

    def sums(self, rule: TrustSettings | None) -> bool:
        """Whether the rule sees the members' mean in the training reward's place."""
        makes = rule is not None and "members" in rule.reads() and "rewards" in rule.effects()
        return makes and self.summed is not None

    def groups(self, rule: TrustSettings | None) -> list[GroupRewards]:
        """What the rule sees: of the rewards that no arm may see, those that it names."""
        chosen = self.summed if self.summed and self.sums(rule) else self.training
        named = rule.reference_rewards() if rule else []
        return [
            replace(groups, reference={name: scores[name] for name in named})
            for groups, scores in zip(chosen, self.scores, strict=True)
        ]

    def lacks(self, rule: TrustSettings | None) -> str | None:
        """What the rule needs and these groups do not have; None: nothing."""
        if rule is None:
            return None
        first, reads = self.training[0], rule.reads()
        if "members" in reads and len(first.parts) < 2:
            return "needs two rewards or more that make an ensemble"
        for name in rule.named_members():
            if name not in first.parts:
                return f"needs the member '{name}'"
        if "ambiguity" in reads and not any(
            groups.ambiguity is not None and groups.ambiguity.isfinite().any()
            for groups in self.training
        ):
            return "needs prompts that say how ambiguous they are"
        for name in rule.reference_rewards():
            if name not in self.scores[0]:
                return f"needs the reward '{name}'"
        return None

    def note(self, rule: TrustSettings | None) -> str:
        """What a reader must know of the rule's figures."""
        if rule is None:
            return "no rule"
        said = [f"reads {name}" for name in rule.reference_rewards()]
        if self.sums(rule):
            said.append("trains on the members' mean")
        if rule.effects() == {"gate"}:
            said.append("gates the regulariser alone")
        return ", ".join(said)


def seen_groups(
    settings: Settings,
    experiment: str,
    batches: list[Batch],
    anchor: Calibration,
    drawn: list[Batch],
) -> Seen:
    """The records of `batches`; `drawn` are the base policy's groups, which give members a scale.

    Members are the parts of the training reward, on the scale on which it adds them up. Where it
    is no sum they are `bpgo.config.offline.members_of`, each less the mean of the base policy's
    samples and divided by their standard deviation, with equal weights.
    """
    name = settings.experiments[experiment].training_reward
    entry, members = settings.rewards[name], members_of(settings, experiment)
    there = all(member in batch.scores for batch in batches for member in members)
    training, summed = [], None
    if isinstance(entry, WeightedSumSettings):
        for batch in batches:
            parts = scaled(entry, batch.scores, anchor) if there else {}
            rewards = batch.scores.get(name)
            if rewards is None:
                rewards = weighted_sum(entry, batch.scores, anchor)
            training.append(_record(batch, rewards, anchor, parts, entry.parts if parts else {}))
    else:
        scales = _scales(drawn, members) if there and len(members) > 1 else {}
        weights = {member: 1 / len(scales) for member in scales}
        for batch in batches:
            parts = _standardized(batch, scales)
            training.append(_record(batch, batch.scores[name], anchor, parts, weights))
        if scales:
            own = _mean_anchor(drawn, scales)
            summed = [
                replace(groups, rewards=_mean(groups.parts), calibration=own) for groups in training
            ]
    return Seen(training, summed, [batch.scores for batch in batches])


def _record(
    batch: Batch,
    rewards: Tensor,
    anchor: Calibration,
    parts: dict[str, Tensor],
    weights: dict[str, float],
) -> GroupRewards:
    first_frame = None
    if anchor.first_frames:
        earned = [anchor.first_frames.get(prompt, float("nan")) for prompt in batch.prompt_ids]
        first_frame = torch.tensor(earned)
    return GroupRewards(
        rewards,
        batch.prompt_ids,
        anchor,
        first_frame,
        parts,
        weights,
        batch.ambiguity,
    )


def _scales(drawn: list[Batch], members: list[str]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each member; one that is constant is none."""
    found = {}
    for member in members:
        values = torch.cat([batch.scores[member].flatten() for batch in drawn]).double()
        if values.std() > 0:
            found[member] = (float(values.mean()), float(values.std()))
    return found


def _standardized(batch: Batch, scales: dict[str, tuple[float, float]]) -> dict[str, Tensor]:
    return {k: (batch.scores[k].double() - mean) / std for k, (mean, std) in scales.items()}


def _mean(parts: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(parts.values())).mean(dim=0).float()


def _mean_anchor(drawn: list[Batch], scales: dict[str, tuple[float, float]]) -> Calibration:
    """The members' mean under the base policy."""
    values = torch.cat([_mean(_standardized(batch, scales)).flatten() for batch in drawn])
    return Calibration(float(values.mean()), float(values.std()), float(values.min()))
