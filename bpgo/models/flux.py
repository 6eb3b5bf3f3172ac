"""FLUX.1 and models of its shape (the embedded world's policy is a tiny one)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bpgo.interfaces import Guidance, PromptEmbeddings
from bpgo.models.guidance import one_scale
from bpgo.models.pipeline import PipelinePolicy
from bpgo.models.text import CLIP, T5, encode


class FluxPolicy(PipelinePolicy):
    """A `FluxPipeline`.

    Latents are packed as the pipeline packs them: `[B, tokens, channels]`, 2 x 2 patches of the
    codec's latents (diffusers `FluxPipeline._pack_latents`). Guidance is an input of the model
    where it was distilled for that (FLUX.1-dev), and has no effect elsewhere.
    """

    PIPELINE = "FluxPipeline"
    TRANSFORMER = "diffusers.models.transformers.transformer_flux:FluxTransformer2DModel"
    channel_dimension = 2  # tokens come first
    SCHEDULES = ("pipeline", "static", "flux")
    ENCODERS = ("text_encoder", "text_encoder_2")

    def token_rows(self) -> int:
        """Packing makes a token of 2 x 2 latents."""
        return 2

    def shape(self) -> tuple[int, ...]:
        """Tokens, channels of a token."""
        return (self.rows // 2) ** 2, self.config.in_channels

    @cached_property
    def _image_ids(self) -> Tensor:
        """Positions of the image tokens, `[tokens, 3]`: (0, row, column)."""
        side = torch.arange(self.rows // 2)
        rows, columns = torch.meshgrid(side, side, indexing="ij")
        ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
        return ids.to(self.device, self.dtype)

    def encode_prompts(
        self,
        texts: list[str],
        first_frames: list[Path] | None = None,  # noqa: ARG002 (it makes images)
    ) -> PromptEmbeddings:
        """T5 tokens `[N, L, D]` and CLIP pooled `[N, D']`, as `FluxPipeline.encode_prompt` does."""
        place, place_2 = self.ENCODERS
        options = (self.device, self.dtype)
        (pooled,) = encode(
            CLIP, self.folder, place, texts, None, lambda out: (out.pooler_output,), *options
        )
        length = self.settings.prompt_tokens
        (tokens,) = encode(T5, self.folder, place_2, texts, length, lambda out: (out[0],), *options)
        return PromptEmbeddings(tokens, pooled)

    def even_sigmas(self, steps: int) -> list[float] | None:
        """`linspace(1, 1/n, n)`."""
        even: list[float] = torch.linspace(1.0, 1.0 / steps, steps).tolist()
        return even

    def predict(
        self, latents: Tensor, sigma: Tensor, prompts: PromptEmbeddings, guidance_scale: Guidance
    ) -> Tensor:
        """`[B, tokens, channels]`."""
        guidance = None
        if self.config.guidance_embeds:
            scale = one_scale(guidance_scale)
            guidance = latents.new_full((len(latents),), scale, dtype=torch.float32)
        output = self.transformer(
            hidden_states=latents.to(self.dtype),
            timestep=sigma.to(self.dtype),
            guidance=guidance,
            pooled_projections=prompts.pooled,
            encoder_hidden_states=prompts.tokens,
            txt_ids=self._image_ids.new_zeros(prompts.tokens.shape[1], 3),
            img_ids=self._image_ids,
            return_dict=False,
        )
        velocity: Tensor = output[0]
        return velocity

    def unpack(self, latents: Tensor) -> Tensor:
        """Tokens back to their 2 x 2 patches."""
        batch, _, channels = latents.shape
        side = self.rows // 2
        patches = latents.view(batch, side, side, channels // 4, 2, 2)
        return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, 2 * side, 2 * side)


MODEL = FluxPolicy
