"""Supervised flow-matching training of the two base policies, text encoders included."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from bpgo.scenes.course import FlowCourse, match_flow
from bpgo.scenes.video.captions import Task, sample_captions, specified_captions
from bpgo.scenes.video.codec import encode, encode_first_frames, scene_clips
from bpgo.scenes.video.oracle import Judgement, judge
from bpgo.scenes.video.policy import (
    Policy,
    build_policy,
    embed,
    first_frames,
    image_to_video,
    velocity,
)
from bpgo.scenes.video.policy import sample_clips as sample
from bpgo.scenes.video.text import encode_texts
from bpgo.seeding import derive_seed, generator

STEPS = 3200
IMAGE_STEPS = 500
BATCH = 96
LEARNING_RATE = 2e-3
IMAGE_RATE = 1.2e-3
LEVEL = 0.3
"""Mean of the logit of the noise levels: layouts are decided at high noise."""
SCENES = 16384
"""Scene and caption pairs, all captions of the train split."""
IMAGE_SCENES = 8192
_PART = 1024


@dataclass(frozen=True)
class Examples:
    """What a policy learns from: latents [N, 16, 2, 4, 4], token ids [N, L], conditions or None."""

    latents: Tensor
    ids: Tensor
    condition: Tensor | None = None


def examples(codec: AutoencoderKLWan, count: int, seed: int, task: Task) -> Examples:
    """Encode ``count`` scenes of a task, in parts: clips take a hundred times their latents."""
    latents, ids, conditions = [], [], []
    for start in range(0, count, _PART):
        part = derive_seed(seed, "clip policy scenes", start) % 2**31
        clips, texts = scene_clips(min(_PART, count - start), part, task)
        latents.append(encode(codec, clips))
        ids.append(encode_texts(texts))
        if task == "i2v":
            conditions.append(encode_first_frames(codec, clips[:, 0]))
    return Examples(
        torch.cat(latents), torch.cat(ids), torch.cat(conditions) if conditions else None
    )


def train_text_to_video(
    codec: AutoencoderKLWan, steps: int = STEPS, seed: int = 0, scenes: int = SCENES
) -> Policy:
    """Train transformer and text encoder from nothing; return averaged weights."""
    torch.manual_seed(derive_seed(seed, "clip policy weights"))  # layers draw from it
    policy = build_policy(codec)
    data = examples(codec, scenes, seed, "t2v")
    return _train(policy, data, FlowCourse("t2v policy", steps, LEARNING_RATE, LEVEL, BATCH), seed)


def train_image_to_video(
    base: Policy, steps: int = IMAGE_STEPS, seed: int = 0, scenes: int = IMAGE_SCENES
) -> Policy:
    """Continue from a text-to-video policy, which stays as it is, with first frames given."""
    torch.manual_seed(derive_seed(seed, "image to video weights"))
    policy = image_to_video(base)
    data = examples(base.codec, scenes, seed, "i2v")
    return _train(policy, data, FlowCourse("i2v policy", steps, IMAGE_RATE, LEVEL, BATCH), seed)


def _train(policy: Policy, data: Examples, course: FlowCourse, seed: int) -> Policy:
    """Flow matching; a copy with averaged weights, frozen."""
    for module in (policy.transformer, policy.text_encoder):
        module.train().requires_grad_(True)

    def predict(rows: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
        condition = None if data.condition is None else data.condition[rows]
        return velocity(policy, noisy, sigma, embed(policy, data.ids[rows]), condition)

    draws = generator(seed, "clip policy batches", policy.task)
    average = match_flow(course, policy.trained(), data.latents, predict, draws)
    with average.swapped():
        return Policy(
            policy.task,
            deepcopy(policy.transformer).eval().requires_grad_(False),
            deepcopy(policy.text_encoder).eval().requires_grad_(False),
            policy.codec,
            policy.tokenizer,
        )


def judge_samples(
    policy: Policy, count: int, seed: int = 0, *, specified: bool = False
) -> Judgement:
    """Judge ODE samples on held-out captions, all of ambiguity 0 if ``specified``."""
    draw = specified_captions if specified else sample_captions
    captions = draw(count, seed, "held_out", policy.task)
    texts = [caption.text for caption in captions]
    frames = None
    if policy.task == "i2v":
        frames = first_frames(captions, "scores", seed)
    clips = sample(policy, texts, generator(seed, "clip policy scores"), frames)
    return judge(clips, texts, frames)


def policy_scores(policy: Policy, count: int = 256, seed: int = 0) -> dict[str, float]:
    """What :func:`judge_samples` finds on the average, on all and on specified captions."""
    judged = judge_samples(policy, count, seed)
    specified = judge_samples(policy, count, seed, specified=True)
    scores = {
        name: float(value.mean()) for name, value in vars(judged).items() if value is not None
    }
    right = (specified.motion == 1) & (specified.objects == 1)
    return {
        **scores,
        "specified motion": float((specified.motion == 1).float().mean()),
        "specified motion and objects": float(right.float().mean()),
    }
