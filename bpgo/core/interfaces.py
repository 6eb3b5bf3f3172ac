"""What the core asks of a policy and of a reward; `bpgo.models` and `bpgo.rewards` implement it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bpgo.settings import ModelSettings


@dataclass(frozen=True)
class PromptEmbeddings:
    """Text embeddings of N prompts: `tokens` `[N, L, D]` and `pooled` `[N, D']`.

    A model with true classifier-free guidance also has those of the empty prompt, once:
    `negative_tokens` `[1, L, D]` and `negative_pooled` `[1, D']`.
    """

    tokens: Tensor
    pooled: Tensor
    negative_tokens: Tensor | None = None
    negative_pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: Tensor | slice) -> PromptEmbeddings:
        """The embeddings of some rows, in that order; the empty prompt's stay."""
        return replace(self, tokens=self.tokens[rows], pooled=self.pooled[rows])

    def to(self, device: torch.device, dtype: torch.dtype) -> PromptEmbeddings:
        """On another device, in another dtype; the same tensors where nothing changes."""
        values = {
            name: value.to(device, dtype) for name, value in vars(self).items() if value is not None
        }
        return PromptEmbeddings(**values)


class Policy(Protocol):
    """A flow-matching generator: `velocity` is what training changes, the rest is fixed."""

    settings: ModelSettings
    folder: Path  # the pipeline on this machine
    transformer: nn.Module
    device: torch.device
    dtype: torch.dtype
    latent_shape: tuple[int, ...]

    def trainable(self) -> dict[str, Tensor]:
        """The parameters that training changes, by name."""

    def reference_velocity(self) -> Callable[..., Tensor]:
        """A function like `velocity` that stays the policy's of now, whatever training changes."""

    def encode_prompts(self, texts: list[str]) -> PromptEmbeddings:
        """Text embeddings `[N, ...]` on the host; loads the text encoders and frees them again."""

    def sigmas(self, steps: int) -> Tensor:
        """The noise levels of a sampler, `[T+1]` float32, from 1 (or near) down to 0."""

    def velocity(
        self, latents: Tensor, sigma: Tensor, prompts: PromptEmbeddings, guidance_scale: float
    ) -> Tensor:
        """The velocity at `latents` `[B, ...]` and `sigma` `[B]`, float32, same shape."""

    def decode(self, latents: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1], float32."""

    def save(self, folder: Path) -> None:
        """Write the trained transformer, or its adapter, in diffusers / peft layout."""

    def load_trained(self, folder: Path) -> None:
        """Read what `save` wrote."""


class Reward(Protocol):
    """A reward model: deterministic, batched, without gradients."""

    def __call__(self, images: Tensor, texts: list[str]) -> Tensor:
        """`images` `[B, 3, H, W]` in [0, 1] and their B prompts to rewards `[B]`, float32."""


@runtime_checkable
class SummedReward(Reward, Protocol):
    """A reward made of others, which are logged too."""

    def parts(self, images: Tensor, texts: list[str]) -> dict[str, Tensor]:
        """What each part gives, `[B]` by name, in its own units."""

    def combine(self, parts: dict[str, Tensor]) -> Tensor:
        """The rewards `[B]` that follow from the parts'."""


def rewards_and_parts(
    reward: Reward, images: Tensor, texts: list[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rewards `[B]` and, of a sum, each part's `[B]` by name; every model is called once."""
    if not isinstance(reward, SummedReward):
        return reward(images, texts), {}
    parts = reward.parts(images, texts)
    return reward.combine(parts), parts
