"""VIPO's weights of patches and its dense loss -> `bpgo.core.allocation`, the arm."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from golden_case import Case

from baselines.vipo import Vipo
from bpgo.config import resolve as config
from bpgo.core import sde
from bpgo.core.allocation import pooled, principal, spread
from bpgo.core.loss import ratio
from bpgo.storage.files import repository_root

Answers = dict[str, Any]


def vipo_weights(case: Case) -> Answers:
    """TeleBoost's weights of patches, for the signs of components that are nearest to its own."""
    names = {"weighted": "weighted", "first_pc": "first", "average": "average"}
    pooling = case.choice("method", names)
    components, explained = principal(case.tensor("features"), 3)
    expected = torch.from_numpy(np.array(case.expected()["weights"]))
    signs = [torch.tensor(each) for each in product((1.0, -1.0), repeat=3)]
    found = [pooled(components * sign, explained, pooling) for sign in signs]
    nearest = min(found, key=lambda weights: float((weights - expected).abs().max()))
    return {"explained": explained, "weights": nearest}


def vipo_loss(case: Case) -> Answers:
    """Dense advantages, a ratio at each site (log p summed over channels), the mean over sites."""
    case.choice("kernel", {"dance": None})
    case.descriptive("steps", "shift")
    values = config.load_arm("vipo", repository_root() / "config").model_dump(mode="json")
    changes = {"noise_level": case.arg("eta"), "clip_range": case.arg("clip_range")}
    arm = Vipo(Vipo.Settings.model_validate({**values, **changes}))
    step, sigmas = case.arg("step_index"), case.tensor("sigmas")

    def scored(velocity: torch.Tensor) -> torch.Tensor:
        given = (velocity, case.tensor("latents"), sigmas[step], sigmas[step + 1])
        moved = sde.transition(arm.kernel, *given, arm.noise_level)
        reached = case.tensor("next_latents")
        return sde.log_prob(reached, moved.mean, moved.std, "gaussian", "channel_sum")

    velocity = case.tensor("velocity").requires_grad_()
    now, old = scored(velocity), scored(case.tensor("old_velocity"))
    dense = spread(case.tensor("advantages"), case.tensor("weight_map"))
    seen: Any = SimpleNamespace(ratio=ratio(now, old))
    found = arm.loss(seen, dense)
    loss = found.rows.mean()
    (gradient,) = torch.autograd.grad(loss, velocity)
    assert found.clipped is not None
    case.absolute["clipfrac"] = 1e-7
    return {
        "dense_advantage": dense,
        "log_prob": now,
        "old_log_prob": old,
        "ratio": found.ratio,
        "clipfrac": found.clipped.double().mean(),
        "loss": loss,
        "grad_velocity": gradient,
    }
