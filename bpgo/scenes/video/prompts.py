"""Captions of the embedded video world, with first frames for image to video."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

from bpgo.config.settings import PromptSettings
from bpgo.errors import UserError
from bpgo.prompts.sets import Prompt, PromptList, Split, other_split

if TYPE_CHECKING:
    from bpgo.scenes.video.captions import Caption


class ScenesVideoPromptSettings(PromptSettings):
    """Keys of a `scenes_video` prompt set."""

    kind: Literal["scenes_video"]
    task: Literal["t2v", "i2v"]  # i2v: each comes with a first frame

    @property
    def has_first_frames(self) -> bool:
        """Image to video has them."""
        return self.task == "i2v"

    @property
    def knows_ambiguity(self) -> bool:
        """The grammar knows."""
        return True

    def decides(self, split: Split) -> dict[str, Any]:
        """The grammar keeps the splits apart: how many prompts the other has does not matter."""
        return self.model_dump(mode="json", exclude={str(other_split(split))})


class ScenesVideoPrompts:
    """Captions drawn from the grammar; a first frame follows from the caption, id and seed."""

    Settings = ScenesVideoPromptSettings

    def __init__(self, settings: ScenesVideoPromptSettings) -> None:
        self.settings = settings

    def split(self, name: Split) -> PromptList:
        """See `bpgo.prompts.sets.PromptSet`."""
        from bpgo.scenes.video.captions import sample_captions

        settings = self.settings
        count = getattr(settings, name)
        try:
            captions = sample_captions(count, settings.seed, name, settings.task)
        except ValueError as error:
            raise UserError(f"prompts.{name}: {count} is too many: {error}") from None
        return PromptList(
            [self._prompt(f"{name}-{index:05d}", entry) for index, entry in enumerate(captions)]
        )

    def _prompt(self, name: str, caption: Caption) -> Prompt:
        frame = self._first_frame(caption, name) if self.settings.has_first_frames else None
        return Prompt(name, caption.text, caption.ambiguity, frame)

    def _first_frame(self, caption: Caption, name: str) -> bytes:
        """A PNG file's bytes."""
        from PIL import Image

        from bpgo.scenes.video.render import first_frame

        pixels = first_frame(caption, self.settings.seed, name).transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray((pixels * 255).round().astype("uint8")).save(file, "PNG")
        return file.getvalue()


PROMPTS = ScenesVideoPrompts
