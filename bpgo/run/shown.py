"""A few samples of an iteration as one picture, to be looked at while training goes on."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from bpgo.storage.contact_sheet import contact_sheet, frames_of

MOST = 4  # samples, each of another prompt
LABEL = 90  # characters of a prompt


class ShownSamples:
    """The first sample of each of the first prompts of an iteration, as they are decoded.

    `texts` are its prompts, each of which has `group` samples, one after the other.
    """

    def __init__(self, texts: list[str], group: int) -> None:
        self.texts, self.group = texts, group
        self.kept: list[Tensor] = []
        self._rows = 0

    def see(self, pixels: Tensor) -> None:
        """Take the next decoded samples `[b, 3, H, W]`, or clips `[b, F, 3, H, W]`, in [0, 1]."""
        for row in range(len(pixels)):
            if (self._rows + row) % self.group == 0 and len(self.kept) < MOST:
                values = pixels[row].float().clamp(0, 1).mul(255).round()
                self.kept.append(values.to(torch.uint8).cpu())
        self._rows += len(pixels)

    def png(self) -> bytes:
        """The picture: a row for each sample, below its prompt; of a clip some frames."""
        rows = []
        for text, sample in zip(self.texts, self.kept, strict=False):
            clip = sample if sample.dim() == 4 else sample[None]
            rows.append((text[:LABEL], frames_of(clip.numpy())))
        file = io.BytesIO()
        contact_sheet(rows).save(file, format="PNG")
        return file.getvalue()
