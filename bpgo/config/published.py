"""What is said of files that others publish, and the settings of feature extractors."""

from __future__ import annotations

from typing import Literal

from bpgo.config.fields import NonNegative, Revision, Strict, Title


class Published(Strict):
    """What is said of files that others publish (see `bpgo.storage.hub`)."""

    revision: Revision | None = None  # commit on the hub; a local file or folder needs none
    licence: str = ""  # of the files
    gigabytes: NonNegative = 0.0  # what a first use fetches
    gated: bool = False  # the hub asks to accept the licence, and for a token


class FeatureSettings(Published):
    """What all feature extractors share; an extractor's file subclasses it with its own keys."""

    kind: str  # key of bpgo.registry.FEATURES
    title: Title  # its name in tables and figures
    source: str = ""  # where it comes from

    @property
    def media(self) -> tuple[Literal["image", "video"], ...]:
        """What it reads: images [B, 3, H, W], clips [B, F, 3, H, W]."""
        return ("image",)

    @property
    def has_patches(self) -> bool:
        """Whether it has features of patches too (`bpgo.interfaces.PatchFeatures`)."""
        return False


class PatchFeatureSettings(FeatureSettings):
    """What an extractor of images and of clips, frame by frame, states that sees patches."""

    @property
    def media(self) -> tuple[Literal["image", "video"], ...]:
        """Both."""
        return ("image", "video")

    @property
    def has_patches(self) -> bool:
        """As its name says."""
        return True
