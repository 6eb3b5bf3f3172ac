"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from bpgo.interfaces import Guidance, PromptEmbeddings
from bpgo.models.guidance import guided, one_scale
from bpgo.models.parts import has_part
from bpgo.models.pipeline import PipelinePolicy
from bpgo.models.text import CLIP_WITH_PROJECTION, T5, encode


class StableDiffusion3Policy(PipelinePolicy):
    """A `StableDiffusion3Pipeline`; latents are the codec's, `[B, C, H/8, W/8]`.

    Guidance is classifier-free, with the empty prompt. The third text encoder (T5) may be absent,
    `[null, null]` in `model_index.json`: then its tokens are zeros, as in the pipeline.
    """

    PIPELINE = "StableDiffusion3Pipeline"
    TRANSFORMER = "diffusers.models.transformers.transformer_sd3:SD3Transformer2DModel"
    SCHEDULES = ("pipeline", "static", "sd3")
    TWO_PASSES = True
    ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
    OPTIONAL_ENCODER = "text_encoder_3"

    def token_rows(self) -> int:
        """The transformer makes its own patches."""
        return int(self.config.patch_size)

    def shape(self) -> tuple[int, ...]:
        """Channels, rows, columns."""
        return self.config.in_channels, self.rows, self.rows

    def largest_resolution(self) -> int | None:
        """Its positions are a table, cropped to the image."""
        return int(self.config.pos_embed_max_size * self.patch * self.reduction)

    def encode_prompts(
        self,
        texts: list[str],
        first_frames: list[Path] | None = None,  # noqa: ARG002 (it makes images)
    ) -> PromptEmbeddings:
        """As `StableDiffusion3Pipeline.encode_prompt` does, the empty prompt last.

        Tokens `[N, 77 + L, D]`: both CLIPs' side by side, padded to T5's width, then T5's.
        Pooled `[N, D']`: both CLIPs' projections.
        """
        texts = [*texts, ""]
        clip, pooled = [], []
        for part in self.ENCODERS[:2]:
            found = encode(
                CLIP_WITH_PROJECTION,
                self.folder,
                part,
                texts,
                None,
                lambda out: (out.hidden_states[-2], out[0]),
                self.device,
                self.dtype,
                output_hidden_states=True,
            )
            clip.append(found[0])
            pooled.append(found[1])
        both, t5 = torch.cat(clip, dim=-1), self._t5_tokens(texts)
        tokens = torch.cat([pad(both, (0, t5.shape[-1] - both.shape[-1])), t5], dim=1)
        projected = torch.cat(pooled, dim=-1)
        return PromptEmbeddings(tokens[:-1], projected[:-1], tokens[-1:], projected[-1:])

    def _t5_tokens(self, texts: list[str]) -> Tensor:
        part, length = self.ENCODERS[2], self.settings.prompt_tokens
        if not has_part(self.folder, part):
            width = self.config.joint_attention_dim
            return torch.zeros(len(texts), length, width, dtype=self.dtype)
        (tokens,) = encode(
            T5, self.folder, part, texts, length, lambda out: (out[0],), self.device, self.dtype
        )
        return tokens

    def even_sigmas(self, steps: int) -> list[float] | None:  # noqa: ARG002
        """None: the pipeline leaves the schedule to its scheduler."""
        return None

    def predict(
        self, latents: Tensor, sigma: Tensor, prompts: PromptEmbeddings, guidance_scale: Guidance
    ) -> Tensor:
        """`[B, C, H/8, W/8]`, guided."""
        scale, gradient = one_scale(guidance_scale), self.settings.guidance_gradient
        return guided(self._predict, latents, sigma, prompts, scale, gradient)

    def _predict(self, latents: Tensor, sigma: Tensor, prompts: PromptEmbeddings) -> Tensor:
        output = self.transformer(
            hidden_states=latents.to(self.dtype),
            timestep=sigma * self.scheduler.config.num_train_timesteps,
            encoder_hidden_states=prompts.tokens,
            pooled_projections=prompts.pooled,
            return_dict=False,
        )
        velocity: Tensor = output[0]
        return velocity

    def unpack(self, latents: Tensor) -> Tensor:
        """They are the codec's already."""
        return latents


MODEL = StableDiffusion3Policy
