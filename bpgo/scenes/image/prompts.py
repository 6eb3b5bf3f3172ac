"""Captions of the embedded world; its own grammar keeps the splits apart."""

from __future__ import annotations

from typing import Any, Literal

from bpgo.config.settings import PromptSettings
from bpgo.errors import UserError
from bpgo.prompts.sets import Prompt, PromptList, Split, other_split


class ScenesPromptSettings(PromptSettings):
    """Keys of a `scenes` prompt set."""

    kind: Literal["scenes"]
    # even: from fully specified to fully open; hard_specified: specified ones are long, open short.
    captions: Literal["even", "hard_specified"] = "even"

    @property
    def knows_ambiguity(self) -> bool:
        """The grammar knows."""
        return True

    def decides(self, split: Split) -> dict[str, Any]:
        """The grammar keeps the splits apart: how many prompts the other has does not matter."""
        return self.model_dump(mode="json", exclude={str(other_split(split))})


class ScenesPrompts:
    """Captions drawn from the grammar."""

    Settings = ScenesPromptSettings

    def __init__(self, settings: ScenesPromptSettings) -> None:
        self.settings = settings

    def split(self, name: Split) -> PromptList:
        """See `bpgo.prompts.sets.PromptSet`."""
        from bpgo.scenes.captions import sample_captions
        from bpgo.scenes.hard_captions import sample_hard_captions

        count = getattr(self.settings, name)
        even = self.settings.captions == "even"
        draw = sample_captions if even else sample_hard_captions
        try:
            captions = draw(count, self.settings.seed, name)
        except ValueError as error:
            raise UserError(f"prompts.{name}: {count} is too many: {error}") from None
        return PromptList(
            [
                Prompt(f"{name}-{index:05d}", caption.text, caption.ambiguity)
                for index, caption in enumerate(captions)
            ]
        )


PROMPTS = ScenesPrompts
