"""Rewards of the embedded world, learned from simulated annotators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from bpgo.config.settings import RewardSettings
from bpgo.errors import UserError
from bpgo.scenes.weights import reward_name
from bpgo.scenes.worlds import MEMBERS, Pool, WorldName, world_of

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples


class PreferenceSettings(RewardSettings):
    """Keys of a `scenes_preference` reward."""

    kind: Literal["scenes_preference"] = "scenes_preference"
    world: WorldName  # whose annotators, and what they teach (bpgo.scenes.worlds)
    pool: Pool  # a: ViT-CLIP, b: CNN-CLIP, c: fusion transformer
    member: Annotated[int, Field(ge=1, le=MEMBERS)] = 1  # which of the pool's ensemble
    # Folder of weights; `resolve` says it; None: the shipped one.
    weights: str | None = None
    content: str | None = None  # digest of the file in it; `resolve` says it

    @model_validator(mode="after")
    def _there_is_such_a_model(self) -> PreferenceSettings:
        if (self.pool, self.member) not in world_of(self.world).models():
            raise ValueError(
                f"world '{self.world}' has no member {self.member} of pool {self.pool}: ensembles"
                " are those of pool a in the worlds ambiguous and clear"
            )
        return self

    def world_file(self) -> str:
        """The weights of the model, below the folder."""
        return reward_name(self.world, self.pool, self.member)


class ScenesPreference:
    """The reward model of one annotator pool.

    Raises:
        UserError: the weights are missing or corrupted.
    """

    Settings = PreferenceSettings

    def __init__(self, settings: PreferenceSettings, device: str = "cpu") -> None:
        from bpgo.scenes.weights import WEIGHTS, load_reward
        from bpgo.storage import hub

        self.settings = settings
        self.device = device
        folder = WEIGHTS
        if settings.weights is not None:
            folder = hub.folder(settings.weights, None, f"reward '{settings.title}'")
        self.model = load_reward(settings.world, settings.pool, device, folder, settings.member)

    def __call__(self, samples: Samples) -> Tensor:
        """Score images [B, 3, 24, 24]: [B] float32, higher is better.

        Raises:
            UserError: images of another size.
        """
        import torch

        from bpgo.scenes.image.render import IMAGE_SIZE
        from bpgo.scenes.text import encode_texts

        if (size := samples.pixels.shape[-1]) != IMAGE_SIZE:
            raise UserError(
                f"reward '{self.settings.title}': it reads images of {IMAGE_SIZE} pixels, not"
                f" {size}: set the model's resolution to {IMAGE_SIZE}, or take other rewards"
            )
        ids = encode_texts(samples.texts).to(self.device)
        with torch.no_grad():
            return self.model.score(samples.pixels.to(self.device, torch.float32), ids)


REWARD = ScenesPreference
