"""Supervised flow-matching training of the base policy, text encoders included."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from bpgo.scenes.captions import sample_captions
from bpgo.scenes.course import Average, learning_rate_share
from bpgo.scenes.image.codec import encode, scene_images
from bpgo.scenes.image.oracle import judge
from bpgo.scenes.image.policy import Policy, build_policy, embed, pack, sample_images, velocity
from bpgo.scenes.progress import Progress
from bpgo.scenes.text import encode_texts
from bpgo.seeding import derive_seed, generator

STEPS = 3200
SECOND_STEPS = 2600
BATCH = 128
LEARNING_RATE = 2e-3
SECOND_RATE = 1.5e-3
SECOND_LEVEL = 0.5
"""Mean of the logit of the second course's noise levels (the first's is 0): layouts are decided
at high noise."""
SCENES = 40960
"""Scene and caption pairs, all captions of the train split."""


def _averaged(policy: Policy, average: Average) -> Policy:
    """Copy the policy with averaged weights, in evaluation mode."""
    copy = Policy(
        deepcopy(policy.transformer).eval(),
        deepcopy(policy.text_encoder).eval(),
        deepcopy(policy.text_encoder_2).eval(),
        policy.codec,
        policy.tokenizer,
    )
    average.write(copy.trained())
    return copy


@dataclass(frozen=True)
class Course:
    """One course of training: how long, how fast, at which noise levels, on which scenes."""

    name: str
    steps: int
    rate: float
    level: float
    seed: int
    scenes: int
    checkpoint_every: int = 400


Checkpoint = Callable[[int, Policy], None]


def train_policy(
    codec: AutoencoderKL,
    steps: int = STEPS,
    seed: int = 0,
    scenes: int = SCENES,
    on_checkpoint: Checkpoint | None = None,
) -> Policy:
    """First course: train transformer and text encoders from nothing; return averaged weights."""
    torch.manual_seed(derive_seed(seed, "policy weights"))  # layers draw from the global stream
    policy = build_policy(codec)
    return _train(policy, Course("policy", steps, LEARNING_RATE, 0.0, seed, scenes), on_checkpoint)


def continue_policy(
    policy: Policy,
    steps: int = SECOND_STEPS,
    seed: int = 1,
    scenes: int = SCENES,
    on_checkpoint: Checkpoint | None = None,
) -> Policy:
    """Second course, on fresh scenes and at a restarted rate; ``policy`` itself is changed too."""
    course = Course("policy, second course", steps, SECOND_RATE, SECOND_LEVEL, seed, scenes)
    return _train(policy, course, on_checkpoint)


def _train(policy: Policy, course: Course, on_checkpoint: Checkpoint | None) -> Policy:
    """Flow matching with logit-normal noise levels; the target is noise minus data.

    Esser et al., 2024 (arXiv 2403.03206), section 3.1.
    """
    images, texts = scene_images(course.scenes, derive_seed(course.seed, "policy scenes") % 2**31)
    data, ids = pack(encode(policy.codec, images)), encode_texts(texts)
    parameters = policy.trained()
    average = Average(parameters)
    optimizer = torch.optim.AdamW(
        parameters, lr=course.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_share(step, course.steps)
    )
    draws = generator(course.seed, "policy batches")
    progress = Progress(course.name, course.steps)
    for module in (policy.transformer, policy.text_encoder, policy.text_encoder_2):
        module.train().requires_grad_(True)
    for step in range(course.steps):
        rows = torch.randint(len(data), (BATCH,), generator=draws)
        loss = _flow_matching_loss(policy, data[rows], ids[rows], course.level, draws)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average.update(parameters, step)
        progress.step(step, loss=loss.item())
        if on_checkpoint is not None and (step + 1) % course.checkpoint_every == 0:
            on_checkpoint(step + 1, _averaged(policy, average))
    return _averaged(policy, average)


def _flow_matching_loss(
    policy: Policy, data: Tensor, ids: Tensor, level_mean: float, draws: torch.Generator
) -> Tensor:
    """Mean squared error of the velocity on tokens [B, N, 32] with token ids [B, L]."""
    sigma = torch.sigmoid(level_mean + torch.randn(len(data), generator=draws))
    noise = torch.randn(data.shape, generator=draws)
    level = sigma[:, None, None]
    noisy = (1 - level) * data + level * noise
    predicted = velocity(policy, noisy, sigma, embed(policy, ids))
    return (predicted - (noise - data)).square().mean()


def policy_scores(policy: Policy, count: int = 512, seed: int = 0) -> dict[str, float]:
    """Judge ODE samples on held-out captions: soft, strict, quality in [0, 1], artefact RMS."""
    texts = [caption.text for caption in sample_captions(count, seed, "held_out")]
    judged = judge(sample_images(policy, texts, generator(seed, "policy scores")), texts)
    return {
        name: float(getattr(judged, name).mean())
        for name in ("soft", "strict", "quality", "artefact")
    }
