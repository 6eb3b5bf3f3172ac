"""The codec of the video world: a small AutoencoderKLWan, 5 x 32 x 32 RGB to 16 x 2 x 4 x 4.

Compression is Wan2.1's, 4 x in time (the first frame stands alone) and 8 x in space; the first 2 x
of it by patches, as in the codec of Wan2.2-TI2V. A cell is 2 x 2 latent positions.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from bpgo.scenes.course import Loss, cosine, run_course
from bpgo.scenes.image.render import BACKGROUND
from bpgo.scenes.video.captions import Task, sample_captions
from bpgo.scenes.video.oracle import judge
from bpgo.scenes.video.render import FRAMES, crowded_scene, render_batch, sample_scene
from bpgo.seeding import derive_seed, generator, numpy_generator

STEPS = 1300
BATCH = 16
LEARNING_RATE = 4e-3
KL_WEIGHT = 1e-5
FOREGROUND_WEIGHT = 10.0
"""How much more a pixel of an object counts: objects cover a few hundredths of a clip."""
L1_WEIGHT = 0.2
DECODER_STEPS = 400
DECODER_RATE = 2e-3
DECODER_NOISE = 0.05
"""Latent noise, in latent standard deviations, that the decoder learns to tolerate."""
SCENES = 4096
"""Distinct scenes that the codec is trained on."""
OCCUPIED = 0.7
"""Share of cells that hold an object in them: more than captions name, to learn faster."""
CHANNELS = 16


def build_codec() -> AutoencoderKLWan:
    """Build an untrained codec, 0.2 M parameters."""
    return AutoencoderKLWan(
        base_dim=16,
        decoder_base_dim=24,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1],
        num_res_blocks=0,
        temperal_downsample=[True, True],
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )


def scene_clips(count: int, seed: int, task: Task) -> tuple[Tensor, list[str]]:
    """Draw clips [count, 5, 3, 32, 32] in [0, 1] with train captions of a task that they meet."""
    captions = sample_captions(count, seed, "train", task, distinct=False)
    draws = numpy_generator(seed, "clip scenes", task)
    clips = render_batch([sample_scene(caption, draws) for caption in captions])
    return torch.from_numpy(clips), [caption.text for caption in captions]


def first_frame_inputs(frames: Tensor, count: int) -> Tensor:
    """First frames [B, 3, H, W] in [-1, 1], then ``count`` - 1 grey ones: [B, 3, count, H, W].

    What WanImageToVideoPipeline encodes as the condition. The codec is causal, so the first latent
    frame is the clip's own whatever follows it; it needs no training on grey.
    """
    still = frames.new_zeros(len(frames), 3, count, *frames.shape[-2:])
    still[:, :, 0] = frames
    return still


def train_codec(steps: int = STEPS, seed: int = 0, scenes: int = SCENES) -> AutoencoderKLWan:
    """Train the codec with L1 + L2 + KL and store the latents' mean and deviation in it."""
    torch.manual_seed(derive_seed(seed, "clip codec weights"))  # layers draw from it
    codec = build_codec()
    clips = _training_clips(scenes, seed)
    optimizer = _optimizer(list(codec.parameters()), LEARNING_RATE)
    draws = generator(seed, "clip codec batches")

    def loss_of_batch() -> Loss:
        batch = clips[torch.randint(len(clips), (BATCH,), generator=draws)]
        posterior = codec.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draws)
        decoded = codec.decode(posterior.mean + posterior.std * noise).sample
        reconstruction = _error(decoded, batch)
        divergence = posterior.mean.square() + posterior.var - 1 - posterior.logvar
        loss = reconstruction + KL_WEIGHT * 0.5 * divergence.flatten(1).sum(1).mean()
        return loss, {"reconstruction": reconstruction, "loss": loss}

    codec.train()
    run_course("clip codec", steps, optimizer, cosine(optimizer, steps), loss_of_batch)
    codec.eval()
    _store_statistics(codec, seed)
    return codec


def refine_decoder(
    codec: AutoencoderKLWan, steps: int = DECODER_STEPS, seed: int = 0, scenes: int = SCENES
) -> AutoencoderKLWan:
    """Train the decoder on the frozen encoder's means, which changes no latent.

    The usual last step of published codecs: the KL term kept the decoder's input noisy until here.
    """
    clips = _training_clips(scenes, derive_seed(seed, "clip decoder") % 2**31)
    latents = torch.cat([_means(codec, part) for part in clips.split(128)])
    deviation = latents.std((0, 2, 3, 4), keepdim=True)
    parameters = [*codec.post_quant_conv.parameters(), *codec.decoder.parameters()]
    optimizer = _optimizer(parameters, DECODER_RATE)
    draws = generator(seed, "clip decoder batches")

    def loss_of_batch() -> Loss:
        rows = torch.randint(len(clips), (BATCH,), generator=draws)
        noise = torch.randn(latents[rows].shape, generator=draws)
        decoded = codec.decode(latents[rows] + DECODER_NOISE * deviation * noise).sample
        loss = _error(decoded, clips[rows])
        return loss, {"reconstruction": loss}

    codec.train()
    run_course("clip decoder", steps, optimizer, cosine(optimizer, steps), loss_of_batch)
    return codec.eval()


def _training_clips(scenes: int, seed: int) -> Tensor:
    """Crowded clips as the codec takes them, [N, 3, 5, 32, 32] in [-1, 1]."""
    draws = numpy_generator(seed, "clip codec scenes")
    clips = render_batch([crowded_scene(OCCUPIED, draws) for _ in range(scenes)])
    return torch.from_numpy(clips).transpose(1, 2).contiguous() * 2 - 1


def _optimizer(parameters: list[torch.nn.Parameter], rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)


def _error(decoded: Tensor, clips: Tensor) -> Tensor:
    """L2 and some L1 of clips [B, 3, F, H, W] in [-1, 1], a mean that objects dominate."""
    background = torch.tensor(BACKGROUND)[:, None, None, None] * 2 - 1
    distance = (clips - background).abs().amax(1, keepdim=True)
    weight = 1 + FOREGROUND_WEIGHT * (distance > 0.05)
    error = decoded - clips
    return (weight * (error.square() + L1_WEIGHT * error.abs())).mean() / weight.mean()


@torch.no_grad()
def _means(codec: AutoencoderKLWan, clips: Tensor) -> Tensor:
    mean: Tensor = codec.encode(clips).latent_dist.mean
    return mean


@torch.no_grad()
def _store_statistics(codec: AutoencoderKLWan, seed: int, count: int = 512) -> None:
    """Store the latents' mean and deviation per channel in the codec's configuration."""
    clips = scene_clips(count, derive_seed(seed, "latents") % 2**31, "t2v")[0]
    clips = clips.transpose(1, 2) * 2 - 1
    latents = torch.cat([_means(codec, part) for part in clips.split(128)])
    codec.register_to_config(
        latents_mean=latents.mean((0, 2, 3, 4)).tolist(),
        latents_std=latents.std((0, 2, 3, 4)).tolist(),
    )


def _statistics(codec: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    """Mean and deviation of latents per channel, each [C, 1, 1, 1]."""
    names = ("latents_mean", "latents_std")
    mean, deviation = (torch.tensor(codec.config[name])[:, None, None, None] for name in names)
    return mean, deviation


@torch.no_grad()
def encode(codec: AutoencoderKLWan, clips: Tensor) -> Tensor:
    """Encode clips [B, 5, 3, 32, 32] in [0, 1] to scaled latents [B, 16, 2, 4, 4]."""
    parts = [_means(codec, part.transpose(1, 2) * 2 - 1) for part in clips.split(128)]
    mean, deviation = _statistics(codec)
    return (torch.cat(parts) - mean) / deviation


@torch.no_grad()
def encode_first_frames(codec: AutoencoderKLWan, frames: Tensor, count: int = FRAMES) -> Tensor:
    """Condition of image-to-video for first frames [B, 3, 32, 32] in [0, 1]: [B, 4 + 16, 2, 4, 4].

    As WanImageToVideoPipeline makes it: a mask of four channels (1 where a frame is given), then
    the latents of the first frame followed by grey.
    """
    mean, deviation = _statistics(codec)
    inputs = first_frame_inputs(frames * 2 - 1, count)
    latents = torch.cat([_means(codec, part) for part in inputs.split(128)])
    mask = latents.new_zeros(len(frames), 4, *latents.shape[2:])
    mask[:, :, 0] = 1
    return torch.cat((mask, (latents - mean) / deviation), 1)


@torch.no_grad()
def decode(codec: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Decode scaled latents [B, 16, 2, 4, 4] to clips [B, 5, 3, 32, 32] in [0, 1]."""
    mean, deviation = _statistics(codec)
    parts = [codec.decode(part).sample for part in (latents * deviation + mean).split(128)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1).transpose(1, 2).contiguous()


def reconstruction_scores(
    codec: AutoencoderKLWan, count: int = 256, seed: int = 1
) -> dict[str, float]:
    """Judge reconstructions of fresh scenes by the oracle, each in [0, 1]."""
    clips, texts = scene_clips(count, seed, "t2v")
    judged = judge(decode(codec, encode(codec, clips)), texts)
    return {
        name: float(getattr(judged, name).mean())
        for name in ("soft", "strict", "motion", "steadiness")
    }
