"""Training of the clip reward models on what the annotator pools say.

As in the image world (`bpgo.scenes.image.reward_training`): captions with clips that meet them, and
pairs of policy samples, of mutated scenes, of clips that meet a caption equally well, and of
artefacts. One set of models serves both tasks, so half of everything is of each. Each pool is asked
about pairs of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bpgo.scenes.annotators import sample_labels
from bpgo.scenes.captions import Split
from bpgo.scenes.image.reward_models import RewardModel
from bpgo.scenes.image.reward_training import (
    CONTRAST_BATCH,
    Examples,
    Pairs,
    faint_patterns,
    fit,
    mutated_sides,
)
from bpgo.scenes.video.annotators import preference_probability, taste_share
from bpgo.scenes.video.captions import TASKS, Task, sample_captions
from bpgo.scenes.video.codec import scene_clips
from bpgo.scenes.video.oracle import judge
from bpgo.scenes.video.policy import Policy, first_frames, sample_clips
from bpgo.scenes.video.render import mutate_scene, render_batch, sample_scene
from bpgo.scenes.video.reward_models import build_reward
from bpgo.scenes.video.text import encode_texts
from bpgo.scenes.worlds import Pool
from bpgo.seeding import derive_seed, generator, numpy_generator

STEPS = 600
SAMPLED_PAIRS = 1500
MUTATED_PAIRS = 2000
OPEN_PAIRS = 2500
ARTEFACT_PAIRS = 250
"""Each of each task."""
REAL_PAIRS = 8192
"""Of both tasks together."""
NOISE_LEVEL = 1.0
"""Sampled pairs are about as spread as the groups of reinforcement learning (Dance kernel)."""
_STORED = torch.float16
"""Of clips between rendering and training: thousands of them in half the memory."""


def sampled_pairs(policy: Policy, count: int, seed: int, split: Split = "train") -> Pairs:
    """Two samples of a policy for each of ``count`` captions (and first frames)."""
    captions = sample_captions(count, seed, split, policy.task, distinct=False)
    texts = [caption.text for caption in captions]
    frames = None
    if policy.task == "i2v":
        frames = first_frames(captions, "pairs", seed).repeat(2, 1, 1, 1)
    draws = generator(seed, "sampled clip pairs", policy.task)
    both = sample_clips(policy, texts + texts, draws, frames, noise_level=NOISE_LEVEL)
    return _pairs(both[:count], both[count:], texts)


def mutated_pairs(count: int, seed: int, task: Task, split: Split = "train") -> Pairs:
    """Two scenes per caption, one true to it or changed once, the other changed 1 to 3 times."""
    captions = sample_captions(count, seed, split, task, distinct=False)
    draws = numpy_generator(seed, "mutated clip pairs", task)
    sides = mutated_sides(captions, sample_scene, mutate_scene, draws)
    first, second = (torch.from_numpy(render_batch(side)) for side in sides)
    return _pairs(first, second, [caption.text for caption in captions])


def open_pairs(count: int, seed: int, task: Task, split: Split = "train") -> Pairs:
    """Two scenes that both meet the caption: they differ in what it leaves open, as taste does."""
    captions = sample_captions(count, seed, split, task, distinct=False)
    draws = numpy_generator(seed, "open clip pairs", task)
    first, second = (
        torch.from_numpy(render_batch([sample_scene(caption, draws) for caption in captions]))
        for _ in range(2)
    )
    return _pairs(first, second, [caption.text for caption in captions])


def artefact_pairs(clips: Tensor, texts: list[str], seed: int) -> Pairs:
    """Clips [N, 5, 3, 32, 32] with a faint pattern (first), against the clips (second).

    In the first half of them it stays, in the second half it flickers.
    """
    draws = generator(seed, "clip artefacts")
    count, frames, side = len(clips), clips.shape[1], clips.shape[-1]
    still = faint_patterns(count, side, draws)[:, None].expand_as(clips)
    flicker = faint_patterns(count * frames, side, draws).reshape(clips.shape)
    flickers = torch.arange(count) >= count // 2
    pattern = torch.where(flickers[:, None, None, None, None], flicker, still)
    strength = 0.04 + 0.16 * torch.rand(count, 1, 1, 1, 1, generator=draws)
    spoilt = (clips.float() + strength * pattern).clamp(0, 1)
    return Pairs(spoilt.to(_STORED), clips, texts, torch.ones(count, dtype=torch.bool))


def preference_pairs(
    policies: Sequence[Policy], pool: Pool, seed: int, share: float = 1.0
) -> Pairs:
    """All pairs that one pool is asked about; ``share`` scales their number for short tests."""
    wanted = (SAMPLED_PAIRS, MUTATED_PAIRS, OPEN_PAIRS, ARTEFACT_PAIRS)
    sampled, mutated, free, spoilt = (max(8, int(share * number)) for number in wanted)
    parts = []
    for policy in policies:
        task = policy.task
        samples = sampled_pairs(policy, sampled, derive_seed(seed, "sampled", pool) % 2**31)
        changed = mutated_pairs(mutated, derive_seed(seed, "mutated", pool) % 2**31, task)
        half = spoilt // 2
        clips = torch.cat((samples.first[:half], changed.first[:half]))
        texts = samples.texts[:half] + changed.texts[:half]
        parts += [
            samples,
            changed,
            open_pairs(free, derive_seed(seed, "open", pool) % 2**31, task),
            artefact_pairs(clips, texts, derive_seed(seed, task, pool)),
        ]
    return Pairs(
        torch.cat([part.first for part in parts]),
        torch.cat([part.second for part in parts]),
        [text for part in parts for text in part.texts],
        torch.cat([part.artefact for part in parts]),
    )


def _pairs(first: Tensor, second: Tensor, texts: list[str]) -> Pairs:
    plain = torch.zeros(len(texts), dtype=torch.bool)
    return Pairs(first.to(_STORED), second.to(_STORED), texts, plain)


def _probability(pairs: Pairs, pool: Pool) -> Tensor:
    """How likely the pool prefers the first, [N], in parts: clips are large."""
    parts = []
    for start in range(0, len(pairs), 512):
        rows = slice(start, start + 512)
        first, second = pairs.first[rows].float(), pairs.second[rows].float()
        parts.append(preference_probability(first, second, pairs.texts[rows], pool))
    return torch.cat(parts)


def label(pairs: Pairs, pool: Pool, seed: int) -> Tensor:
    """One pool's labels, [N]: 1 where the first is preferred. An artefact is never preferred."""
    probability = torch.where(pairs.artefact, torch.zeros(()), _probability(pairs, pool))
    return sample_labels(probability, generator(seed, "clip labels", pool))


def train_reward(pairs: Pairs, pool: Pool, steps: int = STEPS, seed: int = 0) -> RewardModel:
    """Train the reward model of one pool: InfoNCE (by 1 - d) plus Bradley-Terry."""
    key = derive_seed(seed, "clip reward", pool)  # pools see different scenes and start differently
    torch.manual_seed(key)  # layers draw from the global stream
    model = build_reward(pool)
    count = min(REAL_PAIRS, 4 * CONTRAST_BATCH * steps) // len(TASKS)
    real = [scene_clips(count, key % 2**31, task) for task in TASKS]
    texts = [text for _, part in real for text in part]
    examples = Examples(
        torch.cat([clips.to(_STORED) for clips, _ in real]),
        encode_texts(texts),
        1 - taste_share(texts),
        pairs,
        encode_texts(pairs.texts),
        label(pairs, pool, seed),
    )
    draws = generator(seed, "clip reward batches", pool)
    return fit(model, examples, steps, draws, f"clip reward {pool}")


@torch.no_grad()
def score_clips(model: RewardModel, clips: Tensor, texts: Sequence[str]) -> Tensor:
    """Score clips [B, 5, 3, 32, 32] in [0, 1]: [B]."""
    ids = encode_texts(texts)
    parts = zip(clips.split(256), ids.split(256), strict=True)
    return torch.cat([model.score(part.float(), words) for part, words in parts])


def preference_accuracy(model: RewardModel, pairs: Pairs, pool: Pool) -> float:
    """Share of pairs ranked as the pool's noiseless preference ranks them, ties left out."""
    wanted = _probability(pairs, pool) - 0.5
    return _ranked_alike(model, pairs, wanted)


def oracle_accuracy(model: RewardModel, pairs: Pairs) -> float:
    """Share of pairs of different soft oracle score that the model ranks as the oracle does."""
    first, second = (judge(side.float(), pairs.texts).soft for side in (pairs.first, pairs.second))
    return _ranked_alike(model, pairs, first - second)


def _ranked_alike(model: RewardModel, pairs: Pairs, wanted: Tensor) -> float:
    decided = wanted.abs() > 1e-4
    first = score_clips(model, pairs.first, pairs.texts)
    second = score_clips(model, pairs.second, pairs.texts)
    right = ((first > second) == (wanted > 0)) & decided
    return float(right.sum() / decided.sum().clamp_min(1))
