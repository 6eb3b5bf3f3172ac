"""The base policy of the embedded world: a small but real Flux pipeline.

The folder that :func:`save_policy` writes is loaded by ``FluxPipeline.from_pretrained`` as
FLUX.1 is; only its sizes differ. Use ``height=24, width=24, max_sequence_length=12`` with it.

Shapes: B batch, L = 12 text tokens, N = 9 image tokens of 32 numbers (2 x 2 of 8 channels),
D = 64 the width of both text encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from bpgo.scenes.image.codec import decode
from bpgo.scenes.text import EOS, PAD, TOKENS, VOCABULARY_SIZE, build_tokenizer, encode_texts
from bpgo.storage.files import atomic_directory

SAMPLING_STEPS = 8
WIDTH = 64
LATENT_SHAPE = (8, 6, 6)
IMAGE_TOKENS, TOKEN_SIZE = 9, 32


@dataclass
class Policy:
    """The parts of the pipeline; ``transformer`` is what reinforcement learning trains."""

    transformer: FluxTransformer2DModel
    text_encoder: CLIPTextModel
    text_encoder_2: T5EncoderModel
    codec: AutoencoderKL
    tokenizer: PreTrainedTokenizerFast

    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters of supervised training by name: all but the codec's."""
        return {
            f"{module}.{name}": parameter
            for module in ("transformer", "text_encoder", "text_encoder_2")
            for name, parameter in getattr(self, module).named_parameters()
        }


def build_policy(codec: AutoencoderKL) -> Policy:
    """Build an untrained policy around a codec; weights come from torch's global stream."""
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=TOKEN_SIZE,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY_SIZE, "pad_token_id": PAD}
    clip = CLIPTextModel(
        CLIPTextConfig(
            **sizes,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=EOS,
            eos_token_id=EOS,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            **sizes,
            d_model=WIDTH,
            d_kv=16,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=16,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
            use_cache=False,
        )
    )
    return Policy(transformer, clip, t5, codec, build_tokenizer())


def save_policy(policy: Policy, folder: Path) -> None:
    """Write a FluxPipeline folder; it appears whole or not at all."""
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0),
        vae=policy.codec,
        text_encoder=policy.text_encoder,
        tokenizer=policy.tokenizer,
        text_encoder_2=policy.text_encoder_2,
        tokenizer_2=build_tokenizer(),
        transformer=policy.transformer,
    )
    with atomic_directory(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)


def load_policy(folder: Path) -> Policy:
    """Load a folder that :func:`save_policy` wrote, in evaluation mode."""
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2):
        module.eval().requires_grad_(False)
    pipeline.vae.eval().requires_grad_(False)
    return Policy(
        pipeline.transformer,
        pipeline.text_encoder,
        pipeline.text_encoder_2,
        pipeline.vae,
        pipeline.tokenizer,
    )


def embed(policy: Policy, token_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Embed token ids [B, L] as FluxPipeline does: sequence [B, L, D] and pooled [B, D]."""
    sequence = policy.text_encoder_2(token_ids)[0]
    return sequence, policy.text_encoder(token_ids).pooler_output


def pack(latents: Tensor) -> Tensor:
    """Pack latents [B, 8, 6, 6] into tokens [B, 9, 32] (FluxPipeline._pack_latents)."""
    batch, channels, height, width = latents.shape
    blocks = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * 4)


def unpack(tokens: Tensor) -> Tensor:
    """Inverse of :func:`pack`."""
    channels, height, width = LATENT_SHAPE
    blocks = tokens.reshape(-1, height // 2, width // 2, channels, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)


def position_ids() -> tuple[Tensor, Tensor]:
    """RoPE positions of the image tokens [N, 3] (0, row, column) and of the text tokens [L, 3]."""
    rows = LATENT_SHAPE[1] // 2
    axis = torch.arange(rows, dtype=torch.float32)
    image = torch.cartesian_prod(torch.zeros(1), axis, axis)
    return image, torch.zeros(TOKENS, 3)


def velocity(policy: Policy, tokens: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
    """Predict the velocity (noise minus data) of tokens [B, N, 32] at noise levels sigma [B]."""
    image_ids, text_ids = position_ids()
    predicted: Tensor = policy.transformer(
        hidden_states=tokens,
        timestep=sigma,
        encoder_hidden_states=text[0],
        pooled_projections=text[1],
        img_ids=image_ids,
        txt_ids=text_ids,
        return_dict=False,
    )[0]
    return predicted


@torch.no_grad()
def sample_images(
    policy: Policy,
    texts: Sequence[str],
    draws: torch.Generator,
    *,
    steps: int = SAMPLING_STEPS,
    noise_level: float = 0.0,
    batch: int = 256,
) -> Tensor:
    """Sample images [B, 3, 24, 24] in [0, 1], one a text.

    Args:
        policy: in evaluation mode.
        texts: captions.
        draws: all noise comes from it.
        steps: Euler steps over sigma = 1, 1 - 1/steps, ..., 0.
        noise_level: 0 for the ODE, else eta of the Dance kernel (arXiv 2505.07818), with the last
            step without noise: the spread of samples that reinforcement learning will see.
        batch: samples in one forward pass; the images depend on it.
    """
    sigmas = torch.linspace(1, 0, steps + 1)
    images = []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        text = embed(policy, encode_texts(part))
        tokens = torch.randn(len(part), IMAGE_TOKENS, TOKEN_SIZE, generator=draws)
        for step in range(steps):
            sigma, drop = float(sigmas[step]), float(sigmas[step] - sigmas[step + 1])
            flow = velocity(policy, tokens, torch.full((len(part),), sigma), text)
            score = -(tokens + (1 - sigma) * flow) / sigma  # of the marginal at this sigma
            tokens = tokens - drop * flow
            if noise_level > 0 and step + 1 < steps:
                noise = torch.randn(tokens.shape, generator=draws)
                tokens = tokens + 0.5 * noise_level**2 * drop * score
                tokens = tokens + noise_level * drop**0.5 * noise
        images.append(decode(policy.codec, unpack(tokens)))
    return torch.cat(images)
