"""Supervised flow-matching training of the base policy, text encoders included."""

from __future__ import annotations

from copy import deepcopy

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from bpgo.scenes.captions import noisy_text, sample_captions
from bpgo.scenes.course import FlowCourse, match_flow
from bpgo.scenes.image.codec import encode, scene_images
from bpgo.scenes.image.oracle import judge
from bpgo.scenes.image.policy import Policy, build_policy, embed, pack, sample_images, velocity
from bpgo.scenes.text import encode_texts
from bpgo.seeding import derive_seed, generator, numpy_generator

STEPS = 3200
SECOND_STEPS = 2600
BATCH = 128
LEARNING_RATE = 2e-3
SECOND_RATE = 1.5e-3
SECOND_LEVEL = 0.5
"""Mean of the logit of the second course's noise levels (the first's is 0): layouts are decided
at high noise."""
NOISY_STEPS = 500
NOISY_RATE = 5e-4
CAPTION_NOISE = 0.35
"""Share of the stating words that the third course draws anew. The policy then knows what words
mean, but follows them only in part, as one that learned from captions of the web: what is left to
gain is large, and reinforcement learning can gain it."""
SCENES = 40960
"""Scene and caption pairs, all captions of the train split."""


def train_policy(
    codec: AutoencoderKL, steps: int = STEPS, seed: int = 0, scenes: int = SCENES
) -> Policy:
    """First course: train transformer and text encoders from nothing; return averaged weights."""
    torch.manual_seed(derive_seed(seed, "policy weights"))  # layers draw from the global stream
    policy = build_policy(codec)
    return _train(policy, FlowCourse("policy", steps, LEARNING_RATE, 0.0, BATCH), seed, scenes)


def continue_policy(
    policy: Policy, steps: int = SECOND_STEPS, seed: int = 1, scenes: int = SCENES
) -> Policy:
    """Second course, on fresh scenes and at a restarted rate; ``policy`` itself is changed too."""
    course = FlowCourse("policy, second course", steps, SECOND_RATE, SECOND_LEVEL, BATCH)
    return _train(policy, course, seed, scenes)


def loosen_policy(
    policy: Policy, steps: int = NOISY_STEPS, seed: int = 2, scenes: int = SCENES
) -> Policy:
    """Third course, on captions with wrong words; ``policy`` itself is changed too."""
    course = FlowCourse("policy, third course", steps, NOISY_RATE, 0.0, BATCH)
    return _train(policy, course, seed, scenes, CAPTION_NOISE)


def _train(
    policy: Policy, course: FlowCourse, seed: int, scenes: int, caption_noise: float = 0.0
) -> Policy:
    """Flow matching on tokens [N, 9, 32] of ``scenes`` scenes; a copy with averaged weights."""
    images, texts = scene_images(scenes, derive_seed(seed, "policy scenes") % 2**31)
    if caption_noise:
        wrong = numpy_generator(seed, "caption noise")
        texts = [noisy_text(text, caption_noise, wrong) for text in texts]
    data, ids = pack(encode(policy.codec, images)), encode_texts(texts)
    for module in (policy.transformer, policy.text_encoder, policy.text_encoder_2):
        module.train().requires_grad_(True)

    def predict(rows: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
        return velocity(policy, noisy, sigma, embed(policy, ids[rows]))

    draws = generator(seed, "policy batches")
    average = match_flow(course, policy.trained(), data, predict, draws)
    with average.swapped():
        return Policy(
            deepcopy(policy.transformer).eval(),
            deepcopy(policy.text_encoder).eval(),
            deepcopy(policy.text_encoder_2).eval(),
            policy.codec,
            policy.tokenizer,
        )


def policy_scores(policy: Policy, count: int = 512, seed: int = 0) -> dict[str, float]:
    """Judge ODE samples on held-out captions: soft, strict, quality in [0, 1], artefact RMS."""
    texts = [caption.text for caption in sample_captions(count, seed, "held_out")]
    judged = judge(sample_images(policy, texts, generator(seed, "policy scores")), texts)
    return {
        name: float(getattr(judged, name).mean())
        for name in ("soft", "strict", "quality", "artefact")
    }
