"""Published advantages, trackers and BPGO's formulas -> `bpgo.core.advantage`, `bpgo.trust`."""

from __future__ import annotations

from typing import Any

import torch
from advantages import PRESETS
from golden_case import Case
from trusted import weighted_terms

from bpgo.core.advantage import (
    AdvantageSettings,
    PromptTracker,
    batch_normalised,
    group_advantage,
    indexed_advantage,
    selection_advantage,
    several_rewards_advantage,
)
from bpgo.records import Calibration, GroupRewards
from bpgo.trust import crt, ras
from bpgo.trust.bpgo import Bpgo, BpgoSettings

Answers = dict[str, Any]


def _preset(name: str, **changes: Any) -> AdvantageSettings:
    """A published preset; libraries clip later, in their loss."""
    return PRESETS[name].model_copy(update={"clip": None, **changes})


def _rounding(case: Case, rewards: torch.Tensor, settings: AdvantageSettings) -> None:
    std = rewards.double().std(dim=-1, correction=min(settings.ddof, rewards.shape[-1] - 1))
    case.rounding("advantages", rewards, std + settings.epsilon)


def _columns(rewards: torch.Tensor, answer: Any) -> torch.Tensor:
    """Apply `answer` to `[N]` rewards or to each column of `[N, T]`."""
    if rewards.ndim == 1:
        return answer(rewards)
    return torch.stack([answer(column) for column in rewards.unbind(1)], dim=1)


def _by_group(rewards: torch.Tensor, index: list[int], answer: Any) -> torch.Tensor:
    """Apply `answer` to each group as `[1, n]`."""
    result = rewards.clone()
    for group in dict.fromkeys(index):
        rows = [row for row, name in enumerate(index) if name == group]
        result[rows] = answer(rewards[rows][None])[0]
    return result


def flow_grpo_tracker(case: Case) -> Answers:
    """Flow-GRPO `PerPromptStatTracker.update`."""
    index = case.tensor("prompts").tolist()
    rewards = case.tensor("rewards").double()
    rule = case.choice(
        "type", {"grpo": None, "sft": "best", "dpo": "best_and_worst", "rwr": "reward"}, "grpo"
    )
    scope = "batch" if case.arg("global_std", False) else "group"
    settings = _preset("flow_grpo", scope=scope)
    if rule is None:
        found = _columns(rewards, lambda column: indexed_advantage(column, index, settings))
    else:
        found = _columns(
            rewards,
            lambda column: _by_group(column, index, lambda g: selection_advantage(g, rule)),
        )
    return {"advantages": found}


def ddpo_tracker(case: Case) -> Answers:
    """DDPO `PerPromptStatTracker.update`, called several times on one tracker."""
    case.descriptive("calls")
    tracker = PromptTracker(case.arg("buffer_size"), case.arg("min_count"), _preset("ddpo"))
    prompts = [str(prompt) for prompt in case.tensor("prompts").tolist()]
    rewards = torch.atleast_2d(case.tensor("rewards"))
    return {"advantages": torch.stack([tracker.advantage(call, prompts) for call in rewards])}


def dance_advantage(case: Case) -> Answers:
    """DanceGRPO's inline advantage, and MixGRPO's of one reward, with trimming."""
    group = case.arg("num_generations")
    case.descriptive("multi_reward_mix", "use_group")
    assert case.arg("use_group", True)
    settings = _preset("dance_grpo", trimmed_ratio=case.arg("trimmed_ratio", 0.0))
    rewards = case.tensor("rewards").reshape(-1, group)
    _rounding(case, rewards, settings)
    return {"advantages": group_advantage(rewards, settings).reshape(-1)}


def flow_factory_advantage(case: Case) -> Answers:
    """Flow-Factory `compute_weighted_sum` and `compute_gdpo`."""
    size, weights = case.arg("group_size"), case.arg("weights")
    index = case.tensor("group")
    order = index.argsort(stable=True)
    scope = "batch" if case.arg("global_std", False) else "group"
    gdpo = "gdpo" in case.function
    settings = _preset("flow_factory", scope="group" if gdpo else scope)
    several = {
        name: case.tensor(f"reward_{name}")[order].reshape(-1, size).double() for name in weights
    }
    found = several_rewards_advantage(several, weights, settings, "gdpo" if gdpo else "rewards")
    result = torch.empty(len(index), dtype=found.dtype)
    result[order] = found.reshape(-1)
    return {"advantages": result}


def trl_gdpo(case: Case) -> Answers:
    """TRL's `normalize_then_sum`: a reward may be undefined for a sample, and is left out there."""
    rewards, size = case.tensor("rewards"), case.arg("num_generations")
    settings = _preset("teleboost")  # ddof 1, std + 1e-4
    total = torch.zeros(len(rewards), dtype=torch.float64)
    for weight, column in zip(case.arg("reward_weights"), rewards.unbind(1), strict=True):
        rows = (~column.isnan()).nonzero().flatten()
        found = indexed_advantage(column[rows].double(), (rows // size).tolist(), settings)
        total[rows] += weight * found
    advantages = torch.zeros_like(total)
    known = ~rewards.isnan().all(dim=1)
    advantages[known] = batch_normalised(total[known], settings)
    return {"advantages": advantages}


def verl_omni_advantage(case: Case) -> Answers:
    """verl-omni `compute_flow_grpo_outcome_advantage`: scores `[N, L]` of one group are pooled."""
    name = "scores" if case.has("scores") else "sample_level_rewards"
    scores = case.tensor(name)
    index = case.tensor("index").repeat_interleave(scores.shape[1]).tolist()
    scope = "batch" if case.arg("global_std", True) else "group"
    if not case.arg("norm_adv_by_std_in_grpo", True):
        scope = "none"
    settings = _preset("verl_omni", epsilon=case.arg("epsilon", 1e-4), scope=scope)
    found = indexed_advantage(scores.reshape(-1), index, settings).reshape(scores.shape)
    _rounding(case, scores.reshape(1, -1), settings)
    return {"advantages": found, "returns": found}


def teleboost_advantage(case: Case) -> Answers:
    """TeleBoost `per_prompt_zscore_advantage`."""
    settings = _preset(
        "teleboost",
        epsilon=case.arg("eps", 1e-4),
        min_group_std=case.arg("min_group_std", 0.0),
    )
    rewards = case.tensor("rewards").reshape(-1, case.arg("num_repeat"))
    _rounding(case, rewards, settings)
    return {"advantages": group_advantage(rewards, settings).reshape(-1)}


def paper_ras(case: Case) -> Answers:
    """Eq. 2."""
    mean = case.tensor("mean_reward")
    prior = case.tensor("prior").expand(mean.shape)
    return {"w": ras.sigmoid_weight(mean, prior, case.arg("alpha"), case.arg("k"))}


def paper_crt(case: Case) -> Answers:
    """Eq. 4, for one group."""
    rewards, prior = torch.atleast_2d(case.tensor("rewards")), case.tensor("prior").reshape(-1)
    found = crt.paper_exp(rewards, prior, case.arg("lam"), exponent_clamp=1e9)
    return {"reranged": found.rewards}


def released_crt(case: Case) -> Answers:
    """TeleBoost `binary_rerange_group_rewards`, one group."""
    found = crt.released_sigmoid(
        case.tensor("rewards")[None],
        torch.tensor([case.arg("prior")]),
        case.arg("a"),
        max(case.arg("temperature"), 1e-8),
        case.arg("exp_clamp", 30.0),
    )
    return {"reranged": found.rewards[0]}


def released_ras(case: Case) -> Answers:
    """TeleBoost `bayes_reliability_weight`, one group; it returns w - 1."""
    rewards = case.tensor("rewards")[None].double()
    prior = torch.tensor([case.arg("prior")], dtype=torch.float64)
    low, high = case.arg("weight_range", [0.5, 1.5])
    variance = case.arg("prior_var", 1.0)
    spread = rewards.var(dim=1, correction=min(1, rewards.shape[1] - 1)) + 1e-8
    case.rounding("w_minus_1", rewards, (spread / rewards.shape[1]).sqrt())
    return {"w_minus_1": ras.bayes_reliability(rewards, prior, variance, (low, high)) - 1}


def released_bpgo(case: Case) -> Answers:
    """TeleBoost's whole chain, rewards to weighted advantages -> the rule, as GRPO carries it."""
    rewards = case.tensor("rewards").reshape(-1, case.arg("rollout_n"))
    priors = case.tensor("priors")
    bayes = case.choice("method", {"bayes": True, "no": False}, "bayes")
    advantage = _preset("teleboost", epsilon=case.arg("eps", 1e-4))
    low, high = case.arg("weight_range", [0.5, 1.5])
    settings = BpgoSettings(
        ras="bayes" if bayes else "off",
        crt="released_sigmoid" if case.arg("use_rerange") else "off",
        combine="overwrite",
        ras_input="transformed",
        reward_scale="raw",
        prior="sft_mean",
        alpha=float(case.arg("alpha", 1.0)),
        prior_variance=float(case.arg("prior_var", 1.0)),
        weight_range=[float(low), float(high)],
        varsigma=1.0,
        a=float(case.arg("a", 50.0)),
        tau=float(case.arg("tau", 5.0)),
        exponent_clamp=float(case.arg("exp_clamp", 30.0)),
        negative_rewards="published",
    )
    names = [str(group) for group in range(len(priors))]
    means = dict(zip(names, priors.tolist(), strict=True))
    groups = GroupRewards(rewards, names, Calibration(0.0, 1.0, 0.0, means))
    answer = Bpgo(settings).judge(groups, torch.Generator())
    weight = answer.columns["weight"][:, None].expand(rewards.shape)
    ((_, advantages),) = weighted_terms(answer, groups, advantage)
    seen = rewards.double()
    if settings.crt != "off":
        seen = crt.released_sigmoid(seen, priors.double(), settings.a, settings.tau).rewards
    reliability = torch.ones(len(rewards), dtype=torch.float64)
    if bayes:
        reliability = ras.bayes_reliability(
            seen, priors.double(), settings.prior_variance, (settings.weight_range[0], high)
        )
    return {
        "rewards_out": seen,
        "advantages": group_advantage(seen, advantage),
        "w_minus_1": (reliability - 1)[:, None].expand(rewards.shape),
        "scale": weight,
        "advantages_out": advantages,
    }
