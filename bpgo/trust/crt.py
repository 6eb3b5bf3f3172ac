"""CRT, contrastive reward transformation within a group: samples above the prior stand out.

Shapes: P groups, G samples a group. Rewards `[P, G]` and prior `[P]` are in the same units.

Neither form is monotone everywhere, and the paper's overflows. What happens there is a setting, and
every sample that it happens to is counted in `Transformed`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Transformed(NamedTuple):
    """`rewards` `[P, G]` after CRT, and how many samples met which rule."""

    rewards: Tensor
    non_monotone: int  # a slightly better sample would have got a lower value
    clamped: int  # the exponent was held at its limit
    floored: int = 0  # the reward was lifted to where the transform turns


def paper_exp(
    rewards: Tensor,
    prior: Tensor,
    lambda_: float,
    exponent_clamp: float = 30.0,
    below_prior: Literal["published", "floor"] = "published",
) -> Transformed:
    """Eq. 4: R~ = [lambda (R - R_prior) + 1{R > R_prior}] exp(R), with a strict >.

    - Its slope below the prior is lambda exp(R) (1 + R - R_prior): further than 1 below the prior
      it falls as R rises, so the worst samples are punished less. `published` keeps that; `floor`
      gives such samples the value at the turning point, R_prior - 1.
    - The exponent is min(R, exponent_clamp).
    """
    anchor = prior[:, None]
    beyond = (rewards < anchor - 1) & (lambda_ > 0)
    count = int(beyond.sum())
    if below_prior == "floor":
        rewards = torch.where(beyond, anchor - 1, rewards)
    clamped = int((rewards > exponent_clamp).sum())
    contrast = lambda_ * (rewards - anchor) + (rewards > anchor).to(rewards.dtype)
    value = contrast * rewards.clamp(max=exponent_clamp).exp()
    if below_prior == "floor":
        return Transformed(value, non_monotone=0, clamped=clamped, floored=count)
    return Transformed(value, non_monotone=count, clamped=clamped)


def released_sigmoid(
    rewards: Tensor, prior: Tensor, a: float, tau: float, exponent_clamp: float = 30.0
) -> Transformed:
    """The released code's form: R~ = [a (R - R_prior) + 1{R > R_prior}] sigmoid(R / tau) R.

    The factor R makes it small near R = 0 and turns the order round below: of two negative rewards
    the worse gets more. It is meant for positive rewards (the authors' VideoCLIP-XL is about 2.7).
    Even there it falls with R in the lower part of (0, R_prior). -R / tau is kept within
    +-exponent_clamp.
    """
    anchor = prior[:, None]
    exponent = -rewards / tau
    clamped = exponent.abs() > exponent_clamp
    gate = 1 / (1 + exponent.clamp(-exponent_clamp, exponent_clamp).exp())
    contrast = a * (rewards - anchor) + (rewards > anchor).to(rewards.dtype)
    gate_slope = torch.where(clamped, 0.0, gate * (1 - gate) / tau)
    slope = a * gate * rewards + contrast * (gate + gate_slope * rewards)
    value = contrast * gate * rewards
    return Transformed(value, int((slope < 0).sum()), int(clamped.sum()))
