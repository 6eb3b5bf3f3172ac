"""Published trust rules -> `bpgo.trust`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from golden_case import Case

from baselines.flow_grpo import FlowGrpo
from bpgo.config import resolve as config
from bpgo.core import sde
from bpgo.core.loss import ratio
from bpgo.core.update import _own_part
from bpgo.records import AdvantageResult, WeightedAdvantage
from bpgo.storage.files import repository_root
from bpgo.trust.gardo import GardoSettings, ShareController, gate_threshold, rank_uncertainty

Answers = dict[str, Any]


def gardo_gate(case: Case) -> Answers:
    """GARDO's uncertainty by ranks, the threshold on it and the gate, as released."""
    assert not case.arg("history")
    auxiliary = [case.tensor(f"reward_{name}") for name in ("aesthetic", "imagereward")]
    found = rank_uncertainty(case.tensor("reward_main"), auxiliary)
    share = case.arg("share")
    threshold = gate_threshold(found, share)
    return {
        "uncertainty": found,
        "share_used": share,  # the first call only stores its mean
        "threshold": threshold,
        "gate": found > threshold,
        "positive_mean": found[found >= 0].mean(),
    }


def gardo_controller(case: Case) -> Answers:
    """GARDO `RiskCompensator.update`, call after call."""
    if case.arg("alpha") != case.arg("beta"):
        raise AssertionError("the share grows and shrinks by one relative step")
    settings = GardoSettings(
        share=case.arg("base"),
        step=case.arg("beta"),
        lowest=case.arg("beta_min"),
        highest=case.arg("beta_max"),
        window=case.arg("window"),
    )
    controller = ShareController(settings)
    rows = zip(case.tensor("positive_uncertainty"), case.tensor("count").tolist(), strict=True)
    shares = [controller.update(row[:count].mean().item()) for row, count in rows]
    return {"share": torch.tensor(shares, dtype=torch.float64)}


def gardo_loss(case: Case) -> Answers:
    """GARDO's inline loss: Flow-GRPO's, with a regulariser that holds the gated samples alone.

    Rows at several steps weigh as their diffusion coefficient, which is 1 in its trainer, where a
    batch is at one step.
    """
    case.descriptive("steps", "shift")
    case.unused_inputs("old_velocity")
    sigmas, steps = case.tensor("sigmas"), case.tensor("step_index")
    velocity = case.tensor("velocity").requires_grad_()
    changes = {
        "noise_level": case.arg("noise_level"),
        "clip_range": case.arg("clip_range"),
        "kl_weight": case.arg("beta"),
    }
    values = config.load_arm("flow_grpo", repository_root() / "config").model_dump(mode="json")
    arm = FlowGrpo(FlowGrpo.Settings.model_validate({**values, **changes}))

    def step(given: torch.Tensor) -> sde.Transition:
        levels = (sigmas[steps], sigmas[steps + 1])
        return sde.transition(arm.kernel, given, case.tensor("latents"), *levels, arm.noise_level)

    moved = step(velocity)
    log_prob = sde.log_prob(case.tensor("next_latents"), moved.mean, moved.std)
    seen: Any = SimpleNamespace(
        step=moved,
        step_of=lambda _: step(case.tensor("ref_velocity")),
        ratio=ratio(log_prob, case.tensor("old_log_prob")),
    )
    diffusion = (moved.std / moved.sqrt_dt).flatten()
    limit = case.arg("adv_clip_max")
    advantage = case.tensor("advantages").clamp(-limit, limit) * diffusion / diffusion.mean()
    result = AdvantageResult([WeightedAdvantage(1.0, advantage[None])], case.tensor("gate")[None])
    (term,), gate = _own_part(result, slice(None))
    assert gate is not None
    rows = arm.loss(seen, term.advantage).rows
    held = (arm.regulariser(seen) * gate).mean()
    loss = rows.mean() + arm.settings.kl_weight * held
    (gradient,) = torch.autograd.grad(loss, velocity)
    case.near_a_clip(1e-3, "loss", "policy_loss", "grad_velocity", "kl_loss")
    return {
        "log_prob": log_prob,
        "std_dev_t": diffusion,
        "policy_loss": rows,
        "kl_loss": held,
        "loss": loss,
        "grad_velocity": gradient,
    }
