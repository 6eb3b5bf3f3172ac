"""Rewards of the embedded world, learned from simulated annotators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.settings import RewardSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples


class PreferenceSettings(RewardSettings):
    """Keys of a `scenes_preference` reward."""

    kind: Literal["scenes_preference"] = "scenes_preference"
    world: Literal["clear", "ambiguous"]  # whose annotators: without or with taste
    pool: Literal["a", "b", "c"]  # a: ViT-CLIP, b: CNN-CLIP, c: fusion transformer


class ScenesPreference:
    """The reward model of one annotator pool, from the shipped weights.

    Raises:
        UserError: the weights are missing or corrupted.
    """

    Settings = PreferenceSettings

    def __init__(self, settings: PreferenceSettings, device: str = "cpu") -> None:
        from bpgo.scenes.weights import load_reward

        self.settings = settings
        self.device = device
        self.model = load_reward(settings.world, settings.pool, device)

    def __call__(self, samples: Samples) -> Tensor:
        """Score images [B, 3, 24, 24]: [B] float32, higher is better."""
        import torch

        from bpgo.scenes.text import encode_texts

        ids = encode_texts(samples.texts).to(self.device)
        with torch.no_grad():
            return self.model.score(samples.pixels.to(self.device, torch.float32), ids)


REWARD = ScenesPreference
