"""Published losses and averages of weights -> `bpgo.core.loss`, `bpgo.run.ema`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_case import Case

from bpgo.core.loss import clip_fraction, clipped_surrogate, kl, ratio
from bpgo.core.sde import Transition
from bpgo.run.ema import EMA

Answers = dict[str, Any]


def _surrogate(
    case: Case, new: str, old: str, limit: float, clip_range: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ratios and losses per row; every library clips the advantage here."""
    advantage = case.tensor("advantages").reshape(-1).clamp(-limit, limit)
    found = ratio(case.tensor(new), case.tensor(old))
    return found, clipped_surrogate(found, advantage, clip_range)


def flow_grpo_loss(case: Case) -> Answers:
    """Flow-GRPO's inline loss; its Wan script divides the KL by the full variance."""
    if case.arg("rationorm", None):
        pytest.skip("arm GRPO-Guard does not exist yet")
    case.descriptive("sched")
    clip_range, beta = case.arg("clip_range"), case.arg("beta", 0.0)
    ratios, losses = _surrogate(
        case, "log_prob", "old_log_prob", case.arg("adv_clip_max", 5), clip_range
    )
    case.unused_inputs("old_prev_sample_mean")
    answers = {"ratio": ratios, "policy_loss": losses.mean(), "loss": losses.mean()}
    answers["clipfrac"] = clip_fraction(ratios, clip_range)
    if case.has("ref_prev_sample_mean"):
        std, sqrt_dt = case.tensor("std_dev_t"), case.tensor("sqrt_dt")
        mean, reference = case.tensor("prev_sample_mean"), case.tensor("ref_prev_sample_mean")
        moved = Transition(mean, std * sqrt_dt, sqrt_dt, torch.ones_like(std))
        form = "gaussian" if "wan" in case.file else "flow_grpo"
        answers["kl_loss"] = kl(form, moved, reference).mean()  # type: ignore[arg-type]
        case.absolute["kl_loss"] = 0.0  # it is tiny: compare it relatively
        answers["loss"] = answers["policy_loss"] + beta * answers["kl_loss"]
    return answers


def dance_loss(case: Case) -> Answers:
    """DanceGRPO's and MixGRPO's inline loss, divided by accumulation and trained steps."""
    clip_range = case.arg("clip_range")
    ratios, losses = _surrogate(
        case, "new_log_prob", "old_log_prob", case.arg("adv_clip_max", 5.0), clip_range
    )
    if case.arg("kl_coeff", 0):
        pytest.skip("MixGRPO's pseudo-KL belongs to an arm that does not exist yet")
    share = case.arg("gradient_accumulation_steps", 1) * case.arg("train_timesteps", 1)
    loss = losses.mean() / share
    fraction = clip_fraction(ratios, clip_range)
    return {"ratio": ratios, "loss": loss, "policy_loss": loss, "clip_frac": fraction}


def verl_omni_loss(case: Case) -> Answers:
    """verl-omni `FlowGRPOLoss.compute_loss`."""
    clip_range = case.arg("clip_ratio")
    ratios, losses = _surrogate(
        case, "log_prob", "old_log_prob", case.arg("adv_clip_max"), clip_range
    )
    weights = case.optional("rollout_is_weights")
    losses = losses if weights is None else losses * weights
    for name in ("ppo_kl", "clipfrac_higher", "clipfrac_lower"):
        case.outside_core(name, "a metric that we do not log")
    return {
        "loss": losses.mean(),
        "ratio_mean": ratios.double().mean(),
        "ratio_std": ratios.double().std(),
        "clipfrac": clip_fraction(ratios, clip_range),
    }


def ema(case: Case) -> Answers:
    """Flow-GRPO `EMAModuleWrapper.step`, one call per optimizer step."""
    case.descriptive("steps")
    weight = {"weight": case.tensor("init")}
    average = EMA(weight, case.arg("decay"), case.arg("update_step_interval", 1))
    path = []
    for values in case.tensor("params"):
        weight["weight"].copy_(values)
        average.update()
        path.append(average.average["weight"].clone())
    return {"ema": torch.stack(path)}
