"""Classifier-free guidance: one velocity from the prompt's and the empty prompt's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from bpgo.errors import UserError
from bpgo.interfaces import OF_PROMPTS, Guidance, PromptEmbeddings


def one_scale(guidance_scale: Guidance) -> float:
    """The guidance scale of a model that has no two experts."""
    if isinstance(guidance_scale, list):
        raise UserError(
            f"guidance_scale: {guidance_scale} is for two experts; this model has one transformer:"
            " give one number"
        )
    return guidance_scale


def guided(
    predict: Callable[[Tensor, Tensor, PromptEmbeddings], Tensor],
    latents: Tensor,
    sigma: Tensor,
    prompts: PromptEmbeddings,
    guidance_scale: float,
    gradient: Literal["both", "conditional"] = "both",
) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598); plain at a scale <= 1.

    `v = v(empty) + scale * (v(prompt) - v(empty))`, in float32. One doubled batch, the empty
    prompt's half first, as in the pipelines.

    With `gradient="conditional"` no gradient goes through `v(empty)` (as TeleBoost trains Wan). Its
    pass then is one of its own, also where no gradient is wanted: rollout and update make the same
    calls, so the first ratios are exactly 1.
    """
    if guidance_scale <= 1:
        return predict(latents, sigma, prompts)
    unprompted = _unprompted(prompts)
    if gradient == "conditional":
        with torch.no_grad():
            empty = predict(latents, sigma, unprompted).float()
        prompted = predict(latents, sigma, prompts).float()
    else:
        output = predict(
            torch.cat([latents, latents]), torch.cat([sigma, sigma]), _joined(unprompted, prompts)
        )
        empty, prompted = output.float().chunk(2)
    return empty + guidance_scale * (prompted - empty)


def _unprompted(prompts: PromptEmbeddings) -> PromptEmbeddings:
    """The empty prompt's embeddings for each row, `[B, ...]`; images stay."""
    if prompts.negative_tokens is None:
        raise ValueError("guidance needs the empty prompt's embeddings")
    found = {}
    for name in OF_PROMPTS:
        value = getattr(prompts, name)
        if value is not None:
            empty = getattr(prompts, f"negative_{name}", None)
            found[name] = value if empty is None else empty.expand_as(value)
    return PromptEmbeddings(**found)


def _joined(first: PromptEmbeddings, second: PromptEmbeddings) -> PromptEmbeddings:
    """The rows of both, `[2B, ...]`."""
    return PromptEmbeddings(
        **{
            name: torch.cat([getattr(first, name), getattr(second, name)])
            for name in OF_PROMPTS
            if getattr(first, name) is not None
        }
    )
