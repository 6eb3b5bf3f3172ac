"""A policy that was trained elsewhere, as a configuration names it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from bpgo.config.digests import digest_of
from bpgo.config.fields import Strict, Title
from bpgo.config.model import LoraSettings

GIVEN = "given"  # the folder of their samples, below `samples`, where experiments have theirs

Place = Annotated[str, Field(min_length=1)]


class GivenPolicy(Strict):
    """A policy that somebody else trained: sampled, judged and shown beside the arms."""

    title: Title  # its name in tables and figures
    # A LoRA as diffusers saves it: a file, or a folder with pytorch_lora_weights.safetensors.
    lora: Place | None = None
    # Or all weights: a folder with transformer/, as diffusers saves it.
    weights: Place | None = None
    source: str = ""  # where it comes from
    # SHA-256 of each file, by its path; `resolve` says it.
    files: dict[str, str] = Field(default={})
    adapter: LoraSettings | None = None  # of a LoRA, as its file has it; `resolve` says it

    @model_validator(mode="after")
    def _one_place(self) -> GivenPolicy:
        if (self.lora is None) == (self.weights is None):
            raise ValueError("must have one of lora and weights")
        return self

    @property
    def place(self) -> str:
        """The path that the configuration names."""
        return self.lora or self.weights or ""

    def decides(self) -> str:
        """Digest of what decides its samples: its files, wherever they lie."""
        return digest_of([self.files[name] for name in sorted(self.files)], self.adapter)
