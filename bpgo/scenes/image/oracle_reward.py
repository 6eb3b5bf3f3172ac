"""The embedded world's truth as a judge: it reads the image and checks the caption's facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.settings import RewardSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.records import Samples


class OracleSettings(RewardSettings):
    """Keys of a `scenes_oracle` reward."""

    kind: Literal["scenes_oracle"] = "scenes_oracle"
    # The share of the caption's facts that are met, the same by how far each is, or all of them.
    output: Literal["soft", "graded", "strict"] = "soft"

    def check_text(self, text: str) -> None:
        """It knows the captions of the embedded world alone."""
        from bpgo.scenes.captions import parse

        parse(text)


class ScenesOracle:
    """The oracle of `bpgo.scenes.image.oracle`; no arm trains on it."""

    Settings = OracleSettings

    def __init__(self, settings: OracleSettings, device: str = "cpu") -> None:
        self.settings = settings
        self.device = device

    def __call__(self, samples: Samples) -> Tensor:
        """Judge images [B, 3, 24, 24]: [B] float32 in [0, 1].

        Raises:
            UserError: a text outside the caption grammar.
        """
        from bpgo.scenes.image.oracle import judge

        judged = judge(samples.pixels, samples.texts)
        found: Tensor = getattr(judged, self.settings.output)
        return found


REWARD = ScenesOracle
