"""What the core asks of a policy and of a reward; `bpgo.models` and `bpgo.rewards` implement it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bpgo.config.model import ModelSettings
from bpgo.records import Samples

Guidance = float | list[float]  # of one model, or [high, low] of its two experts

OF_PROMPTS = ("tokens", "pooled", "condition", "image_tokens")  # fields with a row for each prompt


@dataclass(frozen=True)
class PromptEmbeddings:
    """What a model sees of N prompts: text `tokens` `[N, L, D]`, and `pooled` `[N, D']` or None.

    A model with true classifier-free guidance also has those of the empty prompt, once:
    `negative_tokens` `[1, L, D]` and `negative_pooled` `[1, D']`.

    Image to video: `condition` `[N, C, F, H, W]` is what the transformer gets of the first frames
    beside the latents, and `image_tokens` `[N, L', D'']` an image encoder's view of them.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    negative_tokens: Tensor | None = None
    negative_pooled: Tensor | None = None
    condition: Tensor | None = None
    image_tokens: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: Tensor | slice) -> PromptEmbeddings:
        """The embeddings of some rows, in that order; the empty prompt's stay."""
        fields = {name: getattr(self, name) for name in OF_PROMPTS}
        return replace(
            self, **{name: value[rows] for name, value in fields.items() if value is not None}
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> PromptEmbeddings:
        """On another device, in another dtype; the same tensors where nothing changes.

        `condition` keeps its dtype: a sample may end in it.
        """
        values = {
            name: value.to(device, value.dtype if name == "condition" else dtype)
            for name, value in vars(self).items()
            if value is not None
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
    channel_dimension: int  # of a batch of latents
    boundary: float | None  # noise level between two experts; None: there is one

    def trainable(self) -> dict[str, Tensor]:
        """The parameters that training changes, by name."""

    def reference_velocity(self) -> Callable[..., Tensor]:
        """A function like `velocity` that stays the policy's of now, whatever training changes."""

    def encode_prompts(
        self, texts: list[str], first_frames: list[Path] | None = None
    ) -> PromptEmbeddings:
        """Embeddings `[N, ...]` on the host; loads the text encoders and frees them again.

        `first_frames` are the N prompts' images where the task is image to video.
        """

    def sigmas(self, steps: int, evaluation: bool = False) -> Tensor:
        """The noise levels of a sampler, `[T+1]` float32, from 1 (or near) down to 0.

        Those of training, or with `evaluation` those of judging.
        """

    def velocity(
        self, latents: Tensor, sigma: Tensor, prompts: PromptEmbeddings, guidance_scale: Guidance
    ) -> Tensor:
        """The velocity at `latents` `[B, ...]` and `sigma` `[B]`, float32, same shape."""

    def decode(self, latents: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` or clips `[B, F, 3, H, W]` in [0, 1], float32."""

    def save(self, folder: Path) -> None:
        """Write the trained transformer, or its adapter, in diffusers / peft layout."""

    def load_trained(self, folder: Path) -> None:
        """Read what `save` wrote."""


class Reward(Protocol):
    """A reward model: deterministic, batched, without gradients."""

    def __call__(self, samples: Samples) -> Tensor:
        """Rewards `[B]`, float32, of B images or clips."""


class Features(Protocol):
    """A feature extractor: what makes samples alike or different; deterministic, no gradients."""

    def __call__(self, samples: Samples) -> Tensor:
        """Features `[B, D]`, float32, of B images or clips."""


class PatchFeatures(Features, Protocol):
    """A feature extractor that says where something is, too."""

    def patches(self, samples: Samples) -> Tensor:
        """Features `[B, F, h, w, D]` of the patches of each frame; F is 1 for images."""


@runtime_checkable
class SummedReward(Reward, Protocol):
    """A reward made of others, which are logged too."""

    @property
    def weights(self) -> dict[str, float]:
        """Of each part in the sum."""

    def scaled(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parts' rewards, any shape, on the scale on which they are added up."""

    def parts(self, samples: Samples) -> dict[str, Tensor]:
        """What each part gives, `[B]` by name, in its own units."""

    def combine(self, parts: dict[str, Tensor]) -> Tensor:
        """The rewards `[B]` that follow from the parts'."""


def rewards_and_parts(reward: Reward, samples: Samples) -> tuple[Tensor, dict[str, Tensor]]:
    """Rewards `[B]` and, of a sum, each part's `[B]` by name; every model is called once."""
    if not isinstance(reward, SummedReward):
        return reward(samples), {}
    parts = reward.parts(samples)
    return reward.combine(parts), parts
