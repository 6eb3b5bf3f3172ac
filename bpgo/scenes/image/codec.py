"""The codec of the embedded world: a small AutoencoderKL, 24 x 24 RGB to 8 channels at 6 x 6.

Packed 2 x 2 as Flux does, an image becomes 9 tokens of 32 numbers: one token a cell.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from bpgo.scenes.captions import sample_captions
from bpgo.scenes.course import Loss, one_cycle, run_course
from bpgo.scenes.image.oracle import judge
from bpgo.scenes.image.render import IMAGE_SIZE, render_batch, sample_scene
from bpgo.seeding import derive_seed, generator, numpy_generator

STEPS = 2000
BATCH = 64
LEARNING_RATE = 2e-3
KL_WEIGHT = 1e-4
DECODER_STEPS = 1500
DECODER_RATE = 1e-3
DECODER_NOISE = 0.05
"""Latent noise, in latent standard deviations, that the decoder learns to tolerate."""
SCENES = 16384
"""Distinct scenes that the codec is trained on."""


def build_codec() -> AutoencoderKL:
    """Build an untrained codec, 0.24 M parameters; no attention, no quantising convolutions."""
    return AutoencoderKL(
        sample_size=IMAGE_SIZE,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def scene_images(count: int, seed: int) -> tuple[Tensor, list[str]]:
    """Draw images [count, 3, 24, 24] in [0, 1] with captions of the train split that they meet."""
    captions = sample_captions(count, seed, "train", distinct=False)
    draws = numpy_generator(seed, "scenes")
    images = render_batch([sample_scene(caption, draws) for caption in captions])
    return torch.from_numpy(images), [caption.text for caption in captions]


def train_codec(steps: int = STEPS, seed: int = 0, scenes: int = SCENES) -> AutoencoderKL:
    """Train the codec with L1 + L2 + KL and set its scale so that latents have mean 0, std 1."""
    torch.manual_seed(derive_seed(seed, "codec weights"))  # layers draw from the global stream
    codec = build_codec()
    images, _ = scene_images(scenes, derive_seed(seed, "codec scenes") % 2**31)
    images = images * 2 - 1
    optimizer = torch.optim.AdamW(codec.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    draws = generator(seed, "codec batches")

    def loss_of_batch() -> Loss:
        batch = images[torch.randint(len(images), (BATCH,), generator=draws)]
        posterior = codec.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draws)
        decoded = codec.decode(posterior.mean + posterior.std * noise).sample
        error = decoded - batch
        reconstruction = error.abs().mean() + error.square().mean()
        loss = reconstruction + KL_WEIGHT * posterior.kl().mean()
        return loss, {"reconstruction": reconstruction}

    codec.train()
    run_course("codec", steps, optimizer, one_cycle(optimizer, LEARNING_RATE, steps), loss_of_batch)
    codec.eval()
    _normalise(codec, images[:2048])
    return codec


def refine_decoder(
    codec: AutoencoderKL, steps: int = DECODER_STEPS, seed: int = 0, scenes: int = SCENES
) -> AutoencoderKL:
    """Train the decoder on the frozen encoder's means, which changes no latent.

    The usual last step of published codecs: the KL term kept the decoder's input noisy until here.
    """
    images, _ = scene_images(scenes, derive_seed(seed, "decoder scenes") % 2**31)
    latents, images = encode(codec, images), images * 2 - 1
    parameters = list(codec.decoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=DECODER_RATE, weight_decay=0.0)
    schedule = one_cycle(optimizer, DECODER_RATE, steps, rise=0.05)
    draws = generator(seed, "decoder batches")

    def loss_of_batch() -> Loss:
        rows = torch.randint(len(images), (BATCH,), generator=draws)
        noise = DECODER_NOISE * torch.randn(latents[rows].shape, generator=draws)
        scaled = (latents[rows] + noise) / codec.config["scaling_factor"]
        error = codec.decode(scaled + codec.config["shift_factor"]).sample - images[rows]
        loss = error.abs().mean() + error.square().mean()
        return loss, {"reconstruction": loss}

    codec.train()
    run_course("decoder", steps, optimizer, schedule, loss_of_batch)
    return codec.eval()


@torch.no_grad()
def _normalise(codec: AutoencoderKL, images: Tensor) -> None:
    """Store the latents' mean and inverse standard deviation in the codec's configuration."""
    latents = torch.cat([codec.encode(part).latent_dist.mean for part in images.split(256)])
    codec.register_to_config(
        shift_factor=float(latents.mean()), scaling_factor=float(1.0 / latents.std())
    )


@torch.no_grad()
def encode(codec: AutoencoderKL, images: Tensor) -> Tensor:
    """Encode images [B, 3, 24, 24] in [0, 1] to scaled latents [B, 8, 6, 6] (posterior means)."""
    parts = [codec.encode(part * 2 - 1).latent_dist.mean for part in images.split(256)]
    return (torch.cat(parts) - codec.config["shift_factor"]) * codec.config["scaling_factor"]


@torch.no_grad()
def decode(codec: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode scaled latents [B, 8, 6, 6] to images [B, 3, 24, 24] in [0, 1]."""
    latents = latents / codec.config["scaling_factor"] + codec.config["shift_factor"]
    parts = [codec.decode(part).sample for part in latents.split(256)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def reconstruction_scores(
    codec: AutoencoderKL, count: int = 512, seed: int = 1
) -> dict[str, float]:
    """Judge reconstructions of fresh scenes by the oracle: soft, strict, artefact, in [0, 1]."""
    images, texts = scene_images(count, seed)
    judged = judge(decode(codec, encode(codec, images)), texts)
    return {
        "soft": float(judged.soft.mean()),
        "strict": float(judged.strict.mean()),
        "artefact": float(judged.artefact.mean()),
    }
