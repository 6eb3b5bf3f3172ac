"""Published losses of forward processes and lagging policies -> `baselines`, `bpgo.run.ema`."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from advantages import PLAIN
from golden_case import Case

from baselines import awm, crd, dgpo, diffusion_nft
from baselines.awm import Awm
from baselines.crd import Crd
from baselines.dgpo import Dgpo
from baselines.diffusion_nft import DiffusionNft, sides
from bpgo.core.arm import BASE
from bpgo.core.forward_process import matching_error, rising
from bpgo.core.loss import kl
from bpgo.core.sde import Transition
from bpgo.run.ema import EMA

Answers = dict[str, Any]
FORWARD = {
    "title": "A case",
    "shared_initial_noise": False,
    "skipped_levels": 0,
    "level_fraction": 1.0,
    "trained_fraction": 1.0,
    "level_selection": "shared",
    "kl_weight": 0.0,
}
NFT = {**FORWARD, "algorithm": "diffusion_nft", "decay_type": 1}
AWM = {**FORWARD, "algorithm": "awm", "pull_weight": 1.0, "clip_range": 1.0, "advantage_max": 1.0}
DGPO = {
    **FORWARD,
    "algorithm": "dgpo",
    "advantage": PLAIN,
    "beta": 1.0,
    "reference": "base",
    "mask_range": None,
}


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
        others={
            diffusion_nft.OLD: case.tensor("old_prediction"),
            BASE: case.tensor("ref_prediction"),
        },
    )
    advantage = case.tensor("advantages").reshape(-1).clamp(-limit, limit)
    rows = arm.loss(seen, advantage).rows
    loss = (rows + arm.settings.kl_weight * arm.regulariser(seen)).mean()
    (gradient,) = torch.autograd.grad(loss, velocity)
    towards, away = sides(seen, beta)
    return {
        "r": arm.settings.wanted(advantage),
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
        decay = arm.averages()[diffusion_nft.OLD].decay
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


WEIGHTINGS = {"Uniform": "uniform", "t": "t", "t**2": "t2"}


def _awm(**values: Any) -> Awm:
    return Awm(Awm.Settings.model_validate({**AWM, "advantage": PLAIN, **values}))


def awm_log_prob(case: Case) -> Answers:
    """AWM `compute_log_prob_awm`, without guidance."""
    case.choice("cfg", {False: None})
    arm = _awm(
        weighting=case.choice("weighting", WEIGHTINGS), ghuber_power=case.arg("ghuber_power")
    )
    seen: Any = SimpleNamespace(
        sample=case.tensor("clean"), noise=case.tensor("noise"), sigma=case.tensor("t").flatten()
    )
    case.outside_core("std_dev_t", "of the other form of its KL term, which nothing released takes")
    return {"log_prob": arm.log_prob(seen, case.tensor("model_output"))}


def awm_loss(case: Case) -> Answers:
    """AWM's inline loss, each sample at the same noise levels; both of its forms of the ratio."""
    for name in ("kl_weight", "kl_ema_weight"):
        case.choice(name, {"Uniform": None})
    limit, levels = float(case.arg("adv_clip_max")), case.tensor("t")
    values = {
        "clip_range": case.arg("clip_range"),
        "kl_weight": case.arg("beta"),
        "pull_weight": case.arg("ema_beta"),
        "advantage_max": case.arg("advantage_max"),
        "ghuber_power": case.arg("ghuber_power"),
        "advantage": {**PLAIN, "clip": limit},
    }
    case.descriptive("forms")
    velocity = case.tensor("velocity").flatten(0, 1).requires_grad_()
    count = len(case.tensor("clean"))
    policies = {awm.OLD: "old_velocity", awm.FAST: "ema_velocity", BASE: "base_velocity"}
    seen: Any = SimpleNamespace(
        velocity=velocity,
        sample=case.tensor("clean").repeat(len(levels), 1, 1, 1),
        noise=case.tensor("noise").repeat(len(levels), 1, 1, 1),
        sigma=levels.repeat_interleave(count),
        others={name: case.tensor(key).flatten(0, 1) for name, key in policies.items()},
    )
    advantage = case.tensor("advantages").clamp(-limit, limit).repeat(len(levels))
    answers: Answers = {}
    for weighting, form in (("ghuber", "ghuber_exp_first"), ("t", "t_sum_first")):
        arm = _awm(weighting=weighting, **values)
        answers[f"log_prob_{form}"] = arm.log_prob(seen, velocity)
        answers[f"old_log_prob_{form}"] = arm.log_prob(seen, seen.others[awm.OLD])
        answers[f"kl_base_{form}"] = arm.distance(seen, BASE).mean()
        answers[f"kl_ema_{form}"] = arm.distance(seen, awm.FAST).mean()
        if form == "t_sum_first":
            for name in ("policy_loss", "loss", "grad_velocity"):
                case.outside_core(f"{name}_{form}", "one ratio for all levels, in nothing released")
            continue
        rows = arm.loss(seen, advantage).rows
        loss = (rows + arm.settings.kl_weight * arm.regulariser(seen) + arm.pull(seen)).mean()
        (gradient,) = torch.autograd.grad(loss, velocity)
        answers[f"policy_loss_{form}"] = rows.mean()
        answers[f"loss_{form}"] = loss
        answers[f"grad_velocity_{form}"] = gradient
    return answers


def _dgpo(case: Case, clip_range: float, **values: Any) -> Answers:
    """DGPO's inline loss; the samples of a group stand together and share noise and level."""
    group, limit = case.arg("group_size"), float(case.arg("adv_clip_max", 5))
    case.choice("clip_kl", {False: None})
    case.unused_inputs("t", "xt")  # velocities are given
    assert (
        case.tensor("group").view(-1, group) == case.tensor("group").view(-1, group)[:, :1]
    ).all()
    reference = case.choice("use_ema_ref", {False: BASE, True: dgpo.FAST})
    masks = all([case.arg("clip_dsm"), case.arg("use_old", True)])
    values = {**DGPO, **values, "reference": reference, "mask_range": clip_range if masks else None}
    arm = Dgpo(Dgpo.Settings.model_validate(values))
    velocity = case.tensor("velocity").requires_grad_()
    others = {dgpo.FAST: case.tensor("old_velocity"), BASE: case.optional("base_velocity")}
    seen: Any = SimpleNamespace(
        velocity=velocity,
        sample=case.tensor("x0"),
        noise=case.tensor("noise"),
        others=others,
        by_group=lambda numbers: numbers.view(-1, group),
    )
    step = arm.loss(seen, case.tensor("advantages").clamp(-limit, limit))
    answers: Answers = {"dgpo_loss": step.rows.mean(), "dsm_loss": matching_error(seen, velocity)}
    loss = step.rows.mean()
    if arm.settings.kl_weight:
        answers["kl_loss"] = arm.regulariser(seen).mean()
        loss = loss + arm.settings.kl_weight * answers["kl_loss"]
    (answers["grad_velocity"],) = torch.autograd.grad(loss, velocity)
    return {**answers, "loss": loss, "should_clip": step.clipped}


def dgpo_loss(case: Case) -> Answers:
    """As the authors have it."""
    values = {"beta": case.arg("beta_dpo"), "kl_weight": case.arg("kl_beta")}
    return _dgpo(case, case.arg("clip_range"), **values)


def flow_factory_dgpo_loss(case: Case) -> Answers:
    """As Flow-Factory has it; beta magnifies the rounding of d - d_ref in float32."""
    low, high = case.arg("clip_range")
    assert low == -high
    case.relative = dict.fromkeys(case.expected(), 5e-3)
    return _dgpo(case, high, beta=case.arg("dpo_beta"))


def dgpo_reference(case: Case) -> Answers:
    """The fast average after each optimizer step, which the authors number from 0."""
    arm = Dgpo(Dgpo.Settings.model_validate(DGPO))
    fast = arm.averages()[dgpo.FAST]
    weight = {"weight": case.tensor("parameter_start")}
    average, path = EMA(weight, fast.decay, case.arg("update_step_interval")), []
    for step, row in zip(
        case.tensor("global_step").tolist(), case.tensor("parameters"), strict=True
    ):
        weight["weight"].copy_(row)
        average.steps = step  # the case leaves steps out
        average.update()
        path.append(average.average["weight"].clone())
    return {
        "decay": _numbers(fast.decay, case.tensor("global_step") + 1),
        "reference": torch.stack(path),
    }


def crd_loss(case: Case) -> Answers:
    """Flow-Factory's CRD, one micro-batch as one group; its KL has the weight in it."""
    low, limit = case.arg("adv_clip_range")
    assert low == -limit
    case.choice("reward_adaptive_kl", {False: None})
    temperature = case.arg("weight_temp")
    centre = "softmax" if temperature > 0 else "mean" if temperature < 0 else "released_hard"
    values = {
        **FORWARD,
        "algorithm": "crd",
        "advantage": {**PLAIN, "clip": limit},
        "beta": case.arg("crd_beta"),
        "form": case.arg("crd_loss_type"),
        "of_own_size": case.arg("adaptive_logp"),
        "centre": centre,
        "temperature": temperature if temperature > 0 else 1.0,
        "kl_weight": case.arg("kl_beta"),
        "adaptive_kl": False,
    }
    arm = Crd(Crd.Settings.model_validate(values))
    for name in ("weight", "weight_old"):
        case.outside_core(name, "a part of an error by its own size, which holds it")
    velocity = case.tensor("velocity").requires_grad_()
    seen: Any = SimpleNamespace(
        velocity=velocity,
        sample=case.tensor("x0"),
        noise=case.tensor("noise"),
        others={crd.OLD: case.tensor("old_velocity"), BASE: case.tensor("base_velocity")},
        by_group=lambda numbers: numbers.view(1, -1),
    )
    advantage = case.tensor("advantages").clamp(low, limit)
    policy_loss = arm.loss(seen, advantage).rows.mean()
    kl_loss = arm.settings.kl_weight * arm.regulariser(seen).mean()
    loss = policy_loss + kl_loss
    (gradient,) = torch.autograd.grad(loss, velocity)
    return {
        "implicit_reward": arm.implicit_reward(seen),
        "target": arm.settings.wanted(advantage),
        "centred_loss": policy_loss * arm.settings.beta / limit,
        "policy_loss": policy_loss,
        "kl_loss": kl_loss,
        "loss": loss,
        "grad_velocity": gradient,
    }


# Flow-Factory's numbered schedules: start, first, rate, most.
CRD_PRESETS = [
    (0, 0.0, 0.0, 0.0),
    (0, 0.0, 0.001, 0.5),
    (75, 0.0, 0.0075, 0.999),
    (0, 1.0, 0.0, 1.0),
    (0, 0.0, 0.02, 0.99),
    (0, 0.0, 0.01, 0.5),
    (0, 0.0, 0.0075, 0.999),
]


def crd_decay(case: Case) -> Answers:
    """Flow-Factory's `compute_decay`; the first two rows are the arm's own averages."""
    found = []
    for row in case.arg("rows"):
        parts = row.split("-") if isinstance(row, str) else CRD_PRESETS[row]
        start, first, rate, most = map(float, parts)
        found.append(_numbers(rising(int(start), first, rate, most), case.tensor("step")))
    own = [crd.DECAYS[name] for name in (crd.OLD, crd.SAMPLER)]
    found[:2] = [_numbers(decay, case.tensor("step")) for decay in own]
    return {"decay": torch.stack(found)}


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
