"""TempFlow-GRPO's and Flash-GRPO's weights of steps, and losses -> `bpgo.core.single_step`."""

from __future__ import annotations

from typing import Any

import torch
from golden_case import Case

from bpgo.config import resolve as config
from bpgo.core import sde
from bpgo.core.loss import clipped_surrogate, ratio, step_weight
from bpgo.core.single_step import SingleStep
from bpgo.registry import load_arm_class
from bpgo.storage.files import repository_root

Answers = dict[str, Any]
NOTHING_DRAWN = torch.zeros(0, dtype=torch.long)


def _arm(name: str, **changes: Any) -> SingleStep:
    """A shipped arm with some other values."""
    values = config.load_arm(name, repository_root() / "config").model_dump(mode="json")
    arm_class = load_arm_class(name)
    found: SingleStep = arm_class(arm_class.Settings.model_validate({**values, **changes}))
    return found


def teleboost_tempflow_weights(case: Case) -> Answers:
    """TeleBoost `compute_timestep_weights`: the std of each step, and the same with mean 1."""
    kernel = case.choice("sigma_form", {"flow_grpo": "flow", "dancegrpo": "dance"})
    changes = {"kernel": kernel, "noise_level": case.arg("eta")}
    plain, even = (_arm("tempflow_grpo", weight_norm=norm, **changes) for norm in (1.0, "schedule"))
    sigmas = case.tensor("sigmas")
    return {
        "noise_std": plain.step_weights(sigmas, NOTHING_DRAWN),
        "weights": even.step_weights(sigmas, NOTHING_DRAWN),
    }


def tempflow_weights(case: Case) -> Answers:
    """TempFlow-GRPO's constant times the std, for SD3 and for FLUX."""
    case.descriptive("steps", "shift")
    rows = []
    for row in case.arg("rows"):  # such as "2.25 * kernel std, eta .7"
        factor, level = float(row.split(" * ")[0]), float(row.split("eta ")[1])
        arm = _arm("tempflow_grpo", weight_norm=factor, noise_level=level)
        rows.append(arm.step_weights(case.tensor("sigmas"), NOTHING_DRAWN)[:-1])
    found = torch.stack(rows)
    return {"weights": found, "mean_weight": found.mean(dim=1)}


def tempflow_loss(case: Case) -> Answers:
    """TempFlow-GRPO's inline loss: weights go into the advantages."""
    std = case.tensor("std")
    ones = torch.ones_like(std)
    weight = case.arg("const") * step_weight("std", sde.Transition(ones, std, ones, ones))
    found = ratio(case.tensor("log_prob"), case.tensor("old_log_prob"))
    rows = clipped_surrogate(found, weight * case.tensor("advantages"), case.arg("clip_range"))
    case.outside_core("unclipped_shape", "its rows are multiplied with each other; ours are not")
    return {"policy_loss": rows.mean()}


def flash_step(case: Case) -> Answers:
    """Flash-GRPO's Wan step and coefficient, one row a step."""
    case.descriptive("num_steps", "flow_shift", "schedule")
    case.unused_inputs("timesteps")
    sigmas, latents = case.tensor("sigmas"), case.tensor("latents")
    rows = torch.arange(len(latents))
    moved = _wan(case, "model_output", rows)
    arm = _arm("flash_grpo", weight_norm=1.0)
    return {
        "coefficient": arm.step_weights(sigmas, NOTHING_DRAWN)[rows],
        "std_dev_t": moved.std / moved.sqrt_dt,
        "sqrt_h": moved.sqrt_dt,
        "prev_sample_mean": moved.mean,
        "log_prob": sde.log_prob(case.tensor("prev_sample"), moved.mean, moved.std),
    }


def flash_loss(case: Case) -> Answers:
    """Flash-GRPO's inline loss; its weights are read from a table of four digits."""
    case.descriptive("num_steps", "flow_shift")
    case.choice("beta", {0.0: None})
    case.unused_inputs("timesteps", "old_velocity")
    sigmas, steps = case.tensor("sigmas"), case.tensor("step_index")
    velocity = case.tensor("velocity").requires_grad_()
    moved = _wan(case, velocity, steps)
    log_prob = sde.log_prob(case.tensor("next_latents"), moved.mean, moved.std)
    weights = _arm("flash_grpo").step_weights(sigmas, steps)[steps]
    plain = _arm("flash_grpo", weight_norm=1.0).step_weights(sigmas, steps)[steps]
    limit = case.arg("adv_clip_max")
    advantage = weights.float() * case.tensor("advantages").clamp(-limit, limit)
    found = ratio(log_prob, case.tensor("old_log_prob"))
    loss = clipped_surrogate(found, advantage, case.arg("clip_range")).mean()
    (gradient,) = torch.autograd.grad(loss, velocity)
    case.near_a_clip(1e-3, "loss", "grad_velocity", "table", "weight")
    return {
        "table": plain,
        "coefficient": plain,
        "weight": 1 / plain.mean(),
        "log_prob": log_prob,
        "loss": loss,
        "grad_velocity": gradient,
    }


def _wan(case: Case, velocity: str | torch.Tensor, steps: torch.Tensor) -> sde.Transition:
    """The Wan kernel's step of each row."""
    sigmas = case.tensor("sigmas")
    given = case.tensor(velocity) if isinstance(velocity, str) else velocity
    levels = (sigmas[steps], sigmas[steps + 1])
    return sde.transition("wan", given, case.tensor("latents"), *levels, sigma_max=sigmas[1])
