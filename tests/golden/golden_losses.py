"""Published losses and averages of weights -> `bpgo.core.loss`, `baselines`, `bpgo.run.ema`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from advantages import PLAIN
from golden_case import Case

from baselines.flow_dppo import FlowDppo
from baselines.grpo_guard import GrpoGuard
from bpgo.core.loss import clipped_surrogate, kl, outside, ratio, step_weight
from bpgo.core.sde import Transition, log_prob, transition
from bpgo.core.seen import StepLoss
from bpgo.run.ema import EMA, warmed_up

Answers = dict[str, Any]
SHARED = {
    "title": "A case",
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


DPPO = {
    **GUARD,
    "algorithm": "flow_dppo",
    "noisy_steps": 1,
    "noisy_fraction": 1.0,
}


def _dppo(threshold: float, step: Transition, old: torch.Tensor, ratios: torch.Tensor) -> Any:
    """Flow-DPPO's arm, and what it sees of rows."""
    values = {k: v for k, v in DPPO.items() if k not in ("step_selection", "trained_fraction")}
    arm = FlowDppo(FlowDppo.Settings.model_validate({**values, "mask_threshold": threshold}))
    return arm, SimpleNamespace(step=step, old_mean=old, ratio=ratios)


def _flow_step(case: Case, velocity: torch.Tensor, latents: torch.Tensor, at: Any) -> Transition:
    """Of the flow kernel, at steps of the case's schedule."""
    sigmas = case.tensor("sigmas")
    return transition("flow", velocity, latents, sigmas[at], sigmas[at + 1], case.arg("eta"))


def flow_dppo_mask(case: Case) -> Answers:
    """UniRL's Flow-DPPO loss on given means and log-probabilities, of two steps."""
    case.descriptive("steps", "shift")
    advantage, means = case.tensor("advantages"), case.tensor("new_means").flatten(0, 1)
    at = torch.tensor(case.arg("step_indices")).repeat(len(advantage))
    std = _flow_step(case, means, means, at).std
    new = case.tensor("new_logp").requires_grad_()
    step = Transition(means, std, torch.ones_like(std), torch.ones_like(std))
    ratios = ratio(new, case.tensor("old_logp")).flatten()
    arm, seen = _dppo(
        case.arg("kl_mask_threshold"), step, case.tensor("old_means").flatten(0, 1), ratios
    )
    found = arm.loss(seen, advantage.flatten())
    case.absolute["kl_per_sample"] = 0.0  # it is tiny: compare it relatively
    return {
        "sigma_t": std[: advantage.shape[1]],
        "kl_per_sample": kl("gaussian", step, seen.old_mean),
        "loss_per_elem": found.rows,
        "loss": found.rows.mean(),
        "masked_fraction": found.clipped.float().mean(),
        "grad_new_logp": torch.autograd.grad(found.rows.mean(), new)[0],
    }


def flow_dppo_step(case: Case) -> Answers:
    """UniRL's step, log-probability and Flow-DPPO loss, with and without the mask."""
    case.descriptive("steps", "shift")
    at, latents = case.arg("step_index"), case.tensor("latents")
    velocity = case.tensor("velocity").requires_grad_()
    step = _flow_step(case, velocity, latents, at)
    old = _flow_step(case, case.tensor("old_velocity"), latents, at).mean
    new = log_prob(case.tensor("next_latents"), step.mean, step.std)
    ratios = ratio(new, case.tensor("old_log_prob"))
    case.relative = dict.fromkeys(case.expected(), 2e-4)
    answers: Answers = {
        "log_prob": new,
        "kernel_std": step.std.flatten()[0],
        "prev_sample_mean": step.mean,
    }
    for name in ("", "_off"):
        arm, seen = _dppo(case.arg(f"kl_mask_threshold{name}"), step, old, ratios)
        found = arm.loss(seen, case.tensor("advantages"))
        (gradient,) = torch.autograd.grad(found.rows.mean(), velocity, retain_graph=True)
        answers[f"loss{name}"] = found.rows.mean()
        answers[f"loss_per_elem{name}"] = found.rows
        answers[f"grad_velocity{name}"] = gradient
        answers[f"masked_fraction{name}"] = found.clipped.float().mean()
    return answers


def flow_dppo_sigma(case: Case) -> Answers:
    """UniRL's std of every step. At sigma = 1 it puts .99, where its own kernel has sigmas[1]."""
    case.descriptive("shift")
    case.outside_core("sigma_t_without_coefficient", "ones: the mask is always by the kernel's std")
    zeros = torch.zeros(case.arg("steps"), 1)
    std = _flow_step(case, zeros, zeros, torch.arange(len(zeros))).std.flatten()
    std[0] *= ((1 - case.tensor("sigmas")[1]) / (1 - 0.99)).sqrt()
    return {"sigma_t": std}
