"""The base policies of the video world: small but real Wan pipelines, one for each task.

The folders that :func:`save_policy` writes are loaded by ``WanPipeline`` and
``WanImageToVideoPipeline`` as Wan2.1 and Wan2.2 are; only their sizes differ. Image-to-video is as
in Wan2.2: the first frame's latents and a mask beside the noisy latents, no image encoder. Use
``height=32, width=32, num_frames=5, max_sequence_length=14`` with them.

Shapes: B batch, L = 14 text tokens, latents [B, 16, 2, 4, 4] (8 tokens, one a cell and latent
frame), condition [B, 20, 2, 4, 4].
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from bpgo.scenes.text import EOS, PAD
from bpgo.scenes.video.captions import Caption, Task
from bpgo.scenes.video.codec import CHANNELS, decode, encode_first_frames
from bpgo.scenes.video.render import first_frame
from bpgo.scenes.video.text import CLIP_WORDS, encode_texts
from bpgo.storage.files import atomic_directory

SAMPLING_STEPS = 8
FLOW_SHIFT = 1.0
WIDTH = 64
HEADS, HEAD_WIDTH = 4, 32
LAYERS = 4
LATENT_SHAPE = (CHANNELS, 2, 4, 4)
CONDITION_CHANNELS = 4 + CHANNELS
"""Of image-to-video: a mask for each of four frames, and the first frame's latents."""


@dataclass
class Policy:
    """The parts of the pipeline; ``transformer`` is what reinforcement learning trains."""

    task: Task
    transformer: WanTransformer3DModel
    text_encoder: UMT5EncoderModel
    codec: AutoencoderKLWan
    tokenizer: PreTrainedTokenizerFast

    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters of supervised training by name: all but the codec's."""
        return {
            f"{module}.{name}": parameter
            for module in ("transformer", "text_encoder")
            for name, parameter in getattr(self, module).named_parameters()
        }


def build_policy(codec: AutoencoderKLWan) -> Policy:
    """Build an untrained text-to-video policy; weights come from torch's global stream."""
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(CLIP_WORDS),
            pad_token_id=PAD,
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
    transformer = _build_transformer(CHANNELS)
    return Policy("t2v", transformer, text_encoder, codec, CLIP_WORDS.build_tokenizer())


def _build_transformer(channels: int) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        in_channels=channels,
        out_channels=CHANNELS,
        text_dim=WIDTH,
        freq_dim=128,
        ffn_dim=2 * HEADS * HEAD_WIDTH,
        num_layers=LAYERS,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=16,
    )


def image_to_video(policy: Policy) -> Policy:
    """A policy that starts as a text-to-video one and can see a condition (by weights of 0)."""
    transformer = _build_transformer(CHANNELS + CONDITION_CHANNELS)
    weights = {name: value.clone() for name, value in policy.transformer.state_dict().items()}
    seen = weights["patch_embedding.weight"]
    widened = seen.new_zeros(transformer.patch_embedding.weight.shape)
    widened[:, :CHANNELS] = seen
    transformer.load_state_dict({**weights, "patch_embedding.weight": widened})
    text_encoder = UMT5EncoderModel(policy.text_encoder.config)
    text_encoder.load_state_dict(policy.text_encoder.state_dict())
    return Policy("i2v", transformer, text_encoder, policy.codec, policy.tokenizer)


def save_policy(policy: Policy, folder: Path) -> None:
    """Write a WanPipeline or WanImageToVideoPipeline folder; it appears whole or not at all.

    The transformer is stored in half precision, to be small; it is trained and run in float32.
    """
    kind = WanPipeline if policy.task == "t2v" else WanImageToVideoPipeline
    pipeline = kind(
        tokenizer=policy.tokenizer,
        text_encoder=policy.text_encoder,
        vae=policy.codec,
        transformer=deepcopy(policy.transformer).half(),
        scheduler=UniPCMultistepScheduler(
            num_train_timesteps=1000,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=FLOW_SHIFT,
        ),
    )
    with atomic_directory(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)


def load_policy(folder: Path, task: Task) -> Policy:
    """Load a folder that :func:`save_policy` wrote, in evaluation mode."""
    kind = WanPipeline if task == "t2v" else WanImageToVideoPipeline
    pipeline = kind.from_pretrained(folder, local_files_only=True, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.transformer, pipeline.text_encoder, pipeline.vae):
        module.eval().requires_grad_(False)
    return Policy(
        task, pipeline.transformer, pipeline.text_encoder, pipeline.vae, pipeline.tokenizer
    )


def embed(policy: Policy, token_ids: Tensor) -> Tensor:
    """Embed token ids [B, L] as the Wan pipelines do, padding set to 0: [B, L, D]."""
    mask = (token_ids != PAD).long()
    embedded: Tensor = policy.text_encoder(token_ids, mask).last_hidden_state
    return embedded * mask[:, :, None]


def velocity(
    policy: Policy, latents: Tensor, sigma: Tensor, text: Tensor, condition: Tensor | None = None
) -> Tensor:
    """Predict the velocity (noise minus data) of latents [B, 16, 2, 4, 4] at sigma [B].

    Args:
        policy: of either task.
        latents: scaled latents.
        sigma: noise levels in (0, 1]; the transformer sees 1000 times as much.
        text: embedded text [B, L, D].
        condition: of image-to-video, [B, 20, 2, 4, 4].
    """
    inputs = latents if condition is None else torch.cat((latents, condition), 1)
    predicted: Tensor = policy.transformer(
        hidden_states=inputs,
        timestep=1000 * sigma,
        encoder_hidden_states=text,
        return_dict=False,
    )[0]
    return predicted


def first_frames(captions: Sequence[Caption], *key: int | str) -> Tensor:
    """A first frame for each caption, [B, 3, 32, 32] in [0, 1]; the key may be any."""
    frames = [first_frame(caption, *key, index) for index, caption in enumerate(captions)]
    return torch.stack([torch.from_numpy(frame) for frame in frames])


def sigmas_of(steps: int, shift: float = FLOW_SHIFT) -> Tensor:
    """Noise levels 1, ..., 0 with a flow shift (arXiv 2403.03206, section 5.3.2): [steps + 1]."""
    even = torch.linspace(1, 0, steps + 1)
    return shift * even / (1 + (shift - 1) * even)


@torch.no_grad()
def sample_clips(
    policy: Policy,
    texts: Sequence[str],
    draws: torch.Generator,
    first_frames: Tensor | None = None,
    *,
    steps: int = SAMPLING_STEPS,
    noise_level: float = 0.0,
    batch: int = 128,
) -> Tensor:
    """Sample clips [B, 5, 3, 32, 32] in [0, 1], one a text.

    Args:
        policy: in evaluation mode.
        texts: captions.
        draws: all noise comes from it.
        first_frames: of image-to-video, [B, 3, 32, 32] in [0, 1].
        steps: Euler steps.
        noise_level: 0 for the ODE, else eta of the Dance kernel (arXiv 2505.07818), with the last
            step without noise: the spread of samples that reinforcement learning will see.
        batch: samples in one forward pass; the clips depend on it.
    """
    sigmas = sigmas_of(steps)
    clips = []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        text = embed(policy, encode_texts(part))
        condition = None
        if first_frames is not None:
            condition = encode_first_frames(policy.codec, first_frames[start : start + batch])
        latents = torch.randn(len(part), *LATENT_SHAPE, generator=draws)
        for step in range(steps):
            sigma, drop = float(sigmas[step]), float(sigmas[step] - sigmas[step + 1])
            flow = velocity(policy, latents, torch.full((len(part),), sigma), text, condition)
            score = -(latents + (1 - sigma) * flow) / sigma  # of the marginal at this sigma
            latents = latents - drop * flow
            if noise_level > 0 and step + 1 < steps:
                noise = torch.randn(latents.shape, generator=draws)
                latents = latents + 0.5 * noise_level**2 * drop * score
                latents = latents + noise_level * drop**0.5 * noise
        clips.append(decode(policy.codec, latents))
    return torch.cat(clips)
