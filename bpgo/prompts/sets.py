"""Prompt sets behind one interface: settings in, the prompts of a split out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from bpgo import registry
from bpgo.config.settings import PromptSettings

Split = Literal["train", "evaluation"]


def other_split(split: Split) -> Split:
    """The one that a prompt of this split must not be in."""
    return "evaluation" if split == "train" else "train"


@dataclass(frozen=True)
class Prompt:
    """One prompt; `ambiguity` from 0 (specified) to 1 (open), None where nobody said.

    Image to video: `first_frame` is an image file on this machine, or a PNG file's bytes.
    """

    id: str
    text: str
    ambiguity: float | None = None
    first_frame: Path | bytes | None = None


@dataclass(frozen=True)
class PromptList:
    """The prompts of one split, and what a manifest should say of the files they come from."""

    prompts: list[Prompt]
    manifest: dict[str, Any] = field(default_factory=dict)


class PromptSet(Protocol):
    """What a kind of prompt set does."""

    def split(self, name: Split) -> PromptList:
        """As many prompts as the settings say; the splits share no text.

        Raises:
            UserError: there are not enough, or a file cannot be had or read.
        """
        ...


def load_prompt_set(settings: PromptSettings) -> PromptSet:
    """The prompt set that a prompt file describes."""
    prompts: PromptSet = registry.load_prompts_class(settings.kind)(settings)
    return prompts
