"""Wan2.2's two experts: which one works at a noise level, and where the other's weights wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bpgo.interfaces import Guidance, PromptEmbeddings
from bpgo.models import lora


def for_high_noise(sigma: Tensor, boundary: float) -> Tensor:
    """Which rows of `sigma` `[B]` the first expert takes, as diffusers' Wan pipelines decide it."""
    return sigma >= boundary


class Experts:
    """Two transformers: `high` from the noise level `boundary` up, `low` below.

    Args:
        high: with its adapter.
        low: likewise.
        boundary: above 0 and below 1.
        device: where they compute; of the idle one only the adapter is there. None: both stay where
            they are.
    """

    def __init__(
        self, high: Any, low: Any, boundary: float, device: torch.device | None = None
    ) -> None:
        self.both, self.boundary = [high, low], boundary
        self.waiting = [] if device is None else [Frozen(each, device) for each in self.both]

    def trainable(self) -> dict[str, Tensor]:
        """Both adapters, by the name of the folder and of the weight."""
        return {
            f"{part}.{name}": value
            for part, expert in zip(("transformer", "transformer_2"), self.both, strict=True)
            for name, value in lora.trainable(expert).items()
        }

    def split(
        self,
        velocity: Callable[..., Tensor],
        latents: Tensor,
        sigma: Tensor,
        prompts: PromptEmbeddings,
        guidance_scale: Guidance,
    ) -> Tensor:
        """`velocity(expert, ...)` of each row's expert, `[B, ...]`, float32.

        Of a pair of guidance scales the first is for high noise.
        """
        high = for_high_noise(sigma, self.boundary)
        scales = guidance_scale if isinstance(guidance_scale, list) else [guidance_scale] * 2
        rows = [mask.nonzero().flatten() for mask in (high, ~high)]
        self._fetch([len(chosen) > 0 for chosen in rows])
        found = [
            velocity(expert, latents[chosen], sigma[chosen], prompts.select(chosen), scale).float()
            for expert, chosen, scale in zip(self.both, rows, scales, strict=True)
            if len(chosen)
        ]
        if len(found) == 1:
            return found[0]
        return torch.cat(found)[torch.cat(rows).argsort()]

    def _fetch(self, wanted: list[bool]) -> None:
        """What works next is on the device; what does not makes room first.

        The backward pass needs the experts of the last forward pass, and finds them there.
        """
        for weights, needed in zip(self.waiting, wanted, strict=False):
            if not needed:
                weights.leave()
        for weights, needed in zip(self.waiting, wanted, strict=False):
            if needed:
                weights.enter()


class Frozen:
    """The frozen weights of a module: on the host always, on the device while they are needed.

    They never change, so leaving the device copies nothing. All else of the module goes to the
    device once.
    """

    def __init__(self, module: Any, device: torch.device) -> None:
        self.device, self.inside = device, False
        pinned = device.type == "cuda"
        self.host: list[tuple[Tensor, Tensor]] = []
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(device)
            else:
                kept = parameter.data.cpu()
                self.host.append((parameter, kept.pin_memory() if pinned else kept))
        for name, buffer in module.named_buffers():
            owner, _, last = name.rpartition(".")
            setattr(module.get_submodule(owner), last, buffer.to(device))
        self.leave()

    def enter(self) -> None:
        """Copy them to the device."""
        if not self.inside:
            for parameter, kept in self.host:
                parameter.data = kept.to(self.device, non_blocking=True, copy=True)
            self.inside = True

    def leave(self) -> None:
        """Free their memory on the device."""
        for parameter, kept in self.host:
            parameter.data = kept
        self.inside = False
