"""Published losses and averages of weights -> `bpgo.core.loss`, `baselines`, `bpgo.run.ema`."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from advantages import PLAIN
from golden_case import Case

from baselines.diffusion_nft import OLD, DiffusionNft, sides
from baselines.grpo_guard import GrpoGuard
from bpgo.core.arm import BASE
from bpgo.core.loss import clipped_surrogate, kl, outside, ratio, step_weight
from bpgo.core.sde import Transition, transition
from bpgo.core.seen import StepLoss
from bpgo.run.ema import EMA, warmed_up

Answers = dict[str, Any]
SHARED = {
    "title": "",
    "shared_initial_noise": False,
    "trained_fraction": 1.0,
    "kl_weight": 0.0,
}
GUARD = {
    **SHARED,
    "algorithm": "grpo_guard",
    "kernel": "flow",
    "noise_level": 0.7,
    "step_selection": "shared",
    "advantage": PLAIN,
    "kl_form": "flow_grpo",
}
NFT = {**SHARED, "algorithm": "diffusion_nft", "decay_type": 1}


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
        return released_guard_loss(case)
    case.descriptive("sched")
    clip_range, beta = case.arg("clip_range"), case.arg("beta", 0.0)
    ratios, losses = _surrogate(
        case, "log_prob", "old_log_prob", case.arg("adv_clip_max", 5), clip_range
    )
    case.unused_inputs("old_prev_sample_mean")
    answers = {"ratio": ratios, "policy_loss": losses.mean(), "loss": losses.mean()}
    answers["clipfrac"] = outside(ratios, clip_range).float().mean()
    if case.has("ref_prev_sample_mean"):
        std, sqrt_dt = case.tensor("std_dev_t"), case.tensor("sqrt_dt")
        mean, reference = case.tensor("prev_sample_mean"), case.tensor("ref_prev_sample_mean")
        moved = Transition(mean, std * sqrt_dt, sqrt_dt, torch.ones_like(std))
        form = "gaussian" if "wan" in case.file else "flow_grpo"
        answers["kl_loss"] = kl(form, moved, reference).mean()  # type: ignore[arg-type]
        case.absolute["kl_loss"] = 0.0  # it is tiny: compare it relatively
        answers["loss"] = answers["policy_loss"] + beta * answers["kl_loss"]
    return answers


def _guarded(
    case: Case, clip_range: float, limit: float, mean_shift: str, weight: str, names: dict[str, str]
) -> StepLoss:
    """GRPO-Guard's arm on a case; `names` maps our words to the case's inputs."""
    values = {"clip_range": clip_range, "mean_shift": mean_shift, "step_weight": weight}
    arm = GrpoGuard(GrpoGuard.Settings.model_validate({**GUARD, **values}))
    mean, old_mean = case.tensor(names["mean"]), case.tensor(names["old_mean"])
    shape = (len(mean), *[1] * (mean.ndim - 1))
    if "dt" in names:
        root = case.tensor(names["dt"]).neg().sqrt().view(shape)
    else:
        root = case.tensor("sqrt_dt").view(shape)
    seen: Any = SimpleNamespace(
        step=Transition(mean, case.tensor("std_dev_t") * root, root, torch.ones_like(root)),
        old_mean=old_mean,
        log_ratio=case.tensor("log_prob") - case.tensor("old_log_prob"),
        points=SimpleNamespace(steps=torch.zeros(len(mean), dtype=torch.long)),
    )
    advantage = case.optional("advantages")
    taken = torch.ones(len(mean)) if advantage is None else advantage.reshape(-1)
    return arm.loss(seen, taken.clamp(-limit, limit))


FLOW_GRPO = {"mean": "prev_sample_mean", "old_mean": "old_prev_sample_mean"}


def released_guard_loss(case: Case) -> Answers:
    """GRPO-Guard's script: b over the micro-batch, the loss divided by h."""
    case.descriptive("sched")
    case.choice("beta", {0.0: None}, 0.0)  # no KL term
    case.unused_inputs("ref_prev_sample_mean")
    found = _guarded(
        case, case.arg("clip_range"), case.arg("adv_clip_max", 5), "batch", "step", FLOW_GRPO
    )
    case.absolute["ratio_mean_bias"] = 0.0  # it is tiny: compare it relatively
    loss = found.rows.mean()
    return {
        "ratio": found.ratio,
        "policy_loss": loss,
        "loss": loss,
        "ratio_mean_bias": found.scalars["mean_shift"],
    }


def verl_omni_guard_loss(case: Case) -> Answers:
    """verl-omni `GRPOGuardLoss.compute_loss`: b of each sample."""
    clip_range = case.arg("clip_ratio")
    found = _guarded(case, clip_range, case.arg("adv_clip_max"), "sample", "step", FLOW_GRPO)
    assert found.ratio is not None
    assert found.clipped is not None
    return {
        "loss": found.rows.mean(),
        "ratio_mean": found.ratio.double().mean(),
        "ratio_std": found.ratio.double().std(),
        "clipfrac": found.clipped.float().mean(),
    }


def flow_factory_guard_ratio(case: Case) -> Answers:
    """Flow-Factory's GRPO-Guard: b of each sample, no weight of the step."""
    names = {"mean": "next_latents_mean", "old_mean": "old_next_latents_mean", "dt": "dt"}
    return {"ratio": _guarded(case, 1.0, 1.0, "sample", "none", names).ratio}


def teleboost_guard_weight(case: Case) -> Answers:
    """TeleBoost `compute_grad_reweight_delta`, which adds eps to h and floors t at it."""
    eps = case.arg("eps")
    level = case.tensor("t").clamp(min=eps)
    zeros = torch.zeros(len(level), 1)
    moved = transition(
        "dance", zeros, zeros, level, level - (case.arg("dt") + eps), case.arg("eta")
    )
    return {"flow_grpo": step_weight("step", moved), "dancegrpo": step_weight("velocity", moved)}


def diffusion_nft_loss(case: Case) -> Answers:
    """DiffusionNFT's inline loss; its `policy_loss` has the KL term added in place."""
    case.choice("adv_mode", {"all": None})
    case.unused_inputs("noise")  # x_t is given
    beta, limit = case.arg("beta"), float(case.arg("adv_clip_max"))
    values = {"beta": beta, "kl_weight": case.arg("kl_beta")}
    values["advantage"] = {**PLAIN, "clip": limit}
    arm = DiffusionNft(DiffusionNft.Settings.model_validate({**NFT, **values}))
    velocity = case.tensor("forward_prediction").requires_grad_()
    seen: Any = SimpleNamespace(
        velocity=velocity,
        latents=case.tensor("xt"),
        sigma=case.tensor("t").flatten(),
        sample=case.tensor("x0"),
        others={OLD: case.tensor("old_prediction"), BASE: case.tensor("ref_prediction")},
    )
    advantage = case.tensor("advantages").reshape(-1).clamp(-limit, limit)
    rows = arm.loss(seen, advantage).rows
    loss = (rows + arm.settings.kl_weight * arm.regulariser(seen)).mean()
    (gradient,) = torch.autograd.grad(loss, velocity)
    towards, away = sides(seen, beta)
    return {
        "r": arm.wanted(advantage),
        "positive_loss": towards,
        "negative_loss": away,
        "policy_loss": loss,
        "loss": loss,
        "grad_forward": gradient,
    }


def diffusion_nft_decay(case: Case) -> Answers:
    """DiffusionNFT `return_decay`, and the path of its old adapter, one row an epoch."""
    answers = {}
    for number in case.arg("types"):
        values = {**NFT, "beta": 1.0, "decay_type": number, "advantage": PLAIN}
        arm = DiffusionNft(DiffusionNft.Settings.model_validate(values))
        decay = arm.averages()[OLD].decay
        if not case.has("parameters"):
            answers[f"type{number}"] = _numbers(decay, case.tensor("step"))
            continue
        rows = case.tensor("parameters")
        weight = {"weight": case.tensor("start")}
        old, path = EMA(weight, decay, by_step=False), []
        for epoch, row in enumerate(rows):
            weight["weight"].copy_(row)
            old.update(min(epoch, 1))  # the first epoch's optimizer steps are counted after it
            path.append(old.average["weight"].clone())
        answers[f"old_type{number}"] = torch.stack(path)
        answers[f"decay_type{number}"] = _numbers(decay, torch.arange(len(rows)))
    return answers


def _numbers(decay: Callable[[int], float], steps: torch.Tensor) -> torch.Tensor:
    return torch.tensor([decay(step) for step in steps.tolist()], dtype=torch.float64)


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
    fraction = outside(ratios, clip_range).float().mean()
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
        "clipfrac": outside(ratios, clip_range).float().mean(),
    }


def verl_omni_distillation(case: Case) -> Answers:
    """verl-omni's distances to a teacher: ours to the base policy, whoever that is."""
    mean, velocity = (
        case.tensor(name).requires_grad_() for name in ("prev_sample_mean", "velocity")
    )
    std = case.tensor("std_dev_t")
    moved = Transition(mean, std, torch.ones_like(std), torch.ones_like(std))
    divergence = kl("gaussian", moved, case.tensor("teacher_prev_sample_mean")).mean()
    seen: Any = SimpleNamespace(velocity=velocity, others={BASE: case.tensor("teacher_velocity")})
    arm = DiffusionNft(
        DiffusionNft.Settings.model_validate({**NFT, "beta": 1.0, "advantage": PLAIN})
    )
    distance = arm.regulariser(seen).mean()
    (by_mean,) = torch.autograd.grad(divergence, mean)
    (by_velocity,) = torch.autograd.grad(distance, velocity)
    return {
        "kl_loss": divergence,
        "grad_prev_sample_mean": by_mean,
        "mse_loss": distance,
        "grad_velocity": by_velocity,
    }


def ema(case: Case) -> Answers:
    """Flow-GRPO `EMAModuleWrapper.step`, one call per optimizer step."""
    case.descriptive("steps")
    weight = {"weight": case.tensor("init")}
    average = EMA(weight, warmed_up(case.arg("decay")), case.arg("update_step_interval", 1))
    path = []
    for values in case.tensor("params"):
        weight["weight"].copy_(values)
        average.update()
        path.append(average.average["weight"].clone())
    return {"ema": torch.stack(path)}
