"""Training of one reward model on what one annotator pool says.

Captions with scenes that meet them (InfoNCE), and preference pairs (Bradley-Terry) of the policy's
own samples, of mutated scenes and of scenes that meet a caption equally well. Without mutated pairs
the reward is weak and is hacked within 60 iterations; without artefact negatives, policies learn a
faint background pattern that any CLIP-like reward likes. In a world of reduced contrast InfoNCE
counts by 1 - d, the annotators' share of alignment where they have taste.

Every draw is named by the seed and the pool: pools are asked about other pairs, learn from other
scenes and start from other weights. None is named by the world, so the models of one pool in two
worlds differ by what the worlds differ in. Members of an ensemble share their pool's scenes, pairs
and labels; each learns from a bootstrap sample of the pairs, from a start and batches of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bpgo.scenes.annotators import contrast_weight, preference_probability, sample_labels
from bpgo.scenes.captions import Split, sample_captions
from bpgo.scenes.course import Loss, one_cycle, run_course
from bpgo.scenes.image.codec import scene_images
from bpgo.scenes.image.oracle import judge
from bpgo.scenes.image.policy import Policy, sample_images
from bpgo.scenes.image.render import mutate_scene, render_batch, sample_scene
from bpgo.scenes.image.reward_models import RewardModel, build_reward, score_images
from bpgo.scenes.text import encode_texts
from bpgo.scenes.worlds import Pool, World
from bpgo.seeding import derive_seed, generator, numpy_generator

STEPS = 600
CONTRAST_BATCH = 48
PREFERENCE_BATCH = 96
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
SAMPLED_PAIRS = 4000
MUTATED_PAIRS = 3800
OPEN_PAIRS = 6000
ARTEFACT_PAIRS = 600
REAL_PAIRS = 16384
NOISE_LEVEL = 1.0
"""Sampled pairs are about as spread as the groups of reinforcement learning (Dance kernel)."""


C = TypeVar("C")
S = TypeVar("S")


@dataclass(frozen=True)
class Pairs:
    """Two images (or clips) for each of N captions: [N, 3, 24, 24], and the texts.

    ``artefact`` marks pairs whose first image is the second with an artefact drawn in.
    """

    first: Tensor
    second: Tensor
    texts: list[str]
    artefact: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Tensor) -> Pairs:
        """Some pairs [M], in that order, with repeats."""
        texts = [self.texts[row] for row in rows.tolist()]
        return Pairs(self.first[rows], self.second[rows], texts, self.artefact[rows])


def sampled_pairs(policy: Policy, count: int, seed: int, split: Split = "train") -> Pairs:
    """Two samples of the policy for each of ``count`` captions."""
    texts = [c.text for c in sample_captions(count, seed, split, distinct=False)]
    draws = generator(seed, "sampled pairs")
    both = sample_images(policy, texts + texts, draws, noise_level=NOISE_LEVEL)
    return Pairs(both[:count], both[count:], texts, torch.zeros(count, dtype=torch.bool))


def mutated_pairs(count: int, seed: int, split: Split = "train") -> Pairs:
    """Two scenes per caption, one true to it or changed once, the other changed 1 to 3 times."""
    captions = sample_captions(count, seed, split, distinct=False)
    draws = numpy_generator(seed, "mutated pairs")
    sides = mutated_sides(captions, sample_scene, mutate_scene, draws)
    first, second = (torch.from_numpy(render_batch(side)) for side in sides)
    return Pairs(first, second, [c.text for c in captions], torch.zeros(count, dtype=torch.bool))


def mutated_sides(
    captions: Sequence[C],
    sample: Callable[[C, np.random.Generator], S],
    mutate: Callable[[S, int, np.random.Generator], S],
    draws: np.random.Generator,
) -> tuple[list[S], list[S]]:
    """Two scenes per caption, one changed 0 or 1 times, the other 1 to 3 times, in any order."""
    sides: tuple[list[S], list[S]] = ([], [])
    for caption in captions:
        # Half the pairs share a scene before the changes; the others differ in all that is open.
        scene = sample(caption, draws)
        other = scene if draws.uniform() < 0.5 else sample(caption, draws)
        changed = [
            mutate(scene, int(draws.integers(0, 2)), draws),
            mutate(other, int(draws.integers(1, 4)), draws),
        ]
        swap = int(draws.integers(2))
        sides[0].append(changed[swap])
        sides[1].append(changed[1 - swap])
    return sides


def open_pairs(count: int, seed: int, split: Split = "train") -> Pairs:
    """Two scenes that both meet the caption: they differ in what it leaves open, as taste does."""
    captions = sample_captions(count, seed, split, distinct=False)
    draws = numpy_generator(seed, "open pairs")
    first, second = (
        torch.from_numpy(render_batch([sample_scene(caption, draws) for caption in captions]))
        for _ in range(2)
    )
    return Pairs(first, second, [c.text for c in captions], torch.zeros(count, dtype=torch.bool))


def artefact_pairs(images: Tensor, texts: list[str], seed: int) -> Pairs:
    """Images [N, 3, 24, 24] with a faint pattern over them (first) against the images (second)."""
    draws = generator(seed, "artefacts")
    count = len(images)
    pattern = faint_patterns(count, images.shape[-1], draws)
    strength = 0.04 + 0.16 * torch.rand(count, 1, 1, 1, generator=draws)
    spoilt = (images + strength * pattern).clamp(0, 1)
    return Pairs(spoilt, images, texts, torch.ones(count, dtype=torch.bool))


def faint_patterns(count: int, side: int, draws: torch.Generator) -> Tensor:
    """Patterns [count, 3, side, side] of unit size: smooth, fine, or repeated every 8 pixels."""
    coarse = torch.randn(count, 3, 6, 6, generator=draws)
    smooth = F.interpolate(coarse, size=(side, side), mode="bilinear")
    fine = torch.randn(count, 3, side, side, generator=draws)
    tile = torch.randn(count, 3, 8, 8, generator=draws).repeat(1, 1, side // 8, side // 8)
    kind = torch.randint(3, (count,), generator=draws)
    return torch.stack((smooth, fine, tile))[kind, torch.arange(count)]


def preference_pairs(policy: Policy, pool: Pool, seed: int, share: float = 1.0) -> Pairs:
    """All pairs that one pool is asked about; ``share`` scales their number for short tests."""
    wanted = (SAMPLED_PAIRS, MUTATED_PAIRS, OPEN_PAIRS, ARTEFACT_PAIRS)
    counts = [max(8, int(share * n)) for n in wanted]
    sampled = sampled_pairs(policy, counts[0], derive_seed(seed, "sampled", pool) % 2**31)
    mutated = mutated_pairs(counts[1], derive_seed(seed, "mutated", pool) % 2**31)
    free = open_pairs(counts[2], derive_seed(seed, "open", pool) % 2**31)
    half = counts[3] // 2
    spoilt = artefact_pairs(
        torch.cat((sampled.first[:half], mutated.first[:half])),
        sampled.texts[:half] + mutated.texts[:half],
        derive_seed(seed, "artefacts", pool),
    )
    parts = (sampled, mutated, free, spoilt)
    return Pairs(
        torch.cat([part.first for part in parts]),
        torch.cat([part.second for part in parts]),
        [text for part in parts for text in part.texts],
        torch.cat([part.artefact for part in parts]),
    )


def label(pairs: Pairs, world: World, pool: Pool, seed: int) -> Tensor:
    """One pool's labels, [N]: 1 where the first is preferred. An artefact is never preferred."""
    probability = preference_probability(pairs.first, pairs.second, pairs.texts, world, pool)
    probability = torch.where(pairs.artefact, torch.zeros(()), probability)
    return sample_labels(probability, generator(seed, "labels", pool))


def bootstrap_rows(count: int, pool: Pool, member: int, seed: int) -> Tensor:
    """Rows [count] of a pool's pairs that a member learns from: the first one from each once."""
    if member == 1:
        return torch.arange(count)
    return torch.randint(count, (count,), generator=generator(seed, "bootstrap", pool, member))


def train_reward(
    pairs: Pairs, world: World, pool: Pool, member: int = 1, steps: int = STEPS, seed: int = 0
) -> RewardModel:
    """Train one reward model: InfoNCE, weighted as the world says, plus Bradley-Terry.

    Args:
        pairs: all that the pool is asked about (`preference_pairs`).
        world: whose annotators answer, and what open captions count.
        pool: which annotators.
        member: of the pool's ensemble, from 1.
        steps: optimizer steps.
        seed: of the set of weights.
    """
    torch.manual_seed(derive_seed(seed, "reward", pool, member))  # layers draw from it
    model = build_reward(pool, member)
    count = min(REAL_PAIRS, 4 * CONTRAST_BATCH * steps)
    images, texts = scene_images(count, derive_seed(seed, "reward scenes", pool) % 2**31)
    labels = label(pairs, world, pool, seed)
    rows = bootstrap_rows(len(pairs), pool, member, seed)
    asked = pairs if member == 1 else pairs.select(rows)
    examples = Examples(
        images,
        encode_texts(texts),
        contrast_weight(texts, world),
        asked,
        encode_texts(asked.texts),
        labels[rows],
    )
    draws = generator(seed, "reward batches", pool, member)
    return fit(model, examples, steps, draws, f"reward {world.name} {pool} {member}")


@dataclass(frozen=True)
class Examples:
    """What a reward model learns from.

    Attributes:
        images: N images (or clips) that meet their captions.
        ids: token ids of those captions [N, L].
        aligned: what each counts in InfoNCE, [N] in [0, 1].
        pairs: M pairs that annotators were asked about.
        pair_ids: token ids of their captions [M, L].
        labels: 1 where the first was preferred, [M].
    """

    images: Tensor
    ids: Tensor
    aligned: Tensor
    pairs: Pairs
    pair_ids: Tensor
    labels: Tensor


def fit(
    model: RewardModel, examples: Examples, steps: int, draws: torch.Generator, name: str
) -> RewardModel:
    """Train a model by InfoNCE and Bradley-Terry; it comes back in evaluation mode."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    images, pairs = examples.images, examples.pairs

    def loss_of_batch() -> Loss:
        rows = torch.randint(len(images), (CONTRAST_BATCH,), generator=draws)
        losses = model.contrast(images[rows].float(), examples.ids[rows])
        contrast = (examples.aligned[rows] * losses).mean()
        rows = torch.randint(len(pairs), (PREFERENCE_BATCH,), generator=draws)
        both = torch.cat((pairs.first[rows], pairs.second[rows])).float()
        # Pixel noise keeps the model from reading preferences off single pixels.
        both = both + 0.03 * torch.randn(both.shape, generator=draws)
        first, second = model.score(both, examples.pair_ids[rows].repeat(2, 1)).chunk(2)
        preference = F.binary_cross_entropy_with_logits(first - second, examples.labels[rows])
        return contrast + preference, {"contrast": contrast, "preference": preference}

    run_course(name, steps, optimizer, one_cycle(optimizer, LEARNING_RATE, steps), loss_of_batch)
    return model.eval().requires_grad_(False)


def preference_accuracy(model: RewardModel, pairs: Pairs, world: World, pool: Pool) -> float:
    """Share of pairs ranked as the pool's noiseless preference ranks them, ties left out."""
    wanted = preference_probability(pairs.first, pairs.second, pairs.texts, world, pool) - 0.5
    decided = wanted.abs() > 1e-4
    first = score_images(model, pairs.first, pairs.texts)
    second = score_images(model, pairs.second, pairs.texts)
    return float((((first > second) == (wanted > 0)) & decided).sum() / decided.sum().clamp_min(1))


def oracle_accuracy(model: RewardModel, pairs: Pairs) -> float:
    """Share of pairs of different soft oracle score that the model ranks as the oracle does."""
    gap = judge(pairs.first, pairs.texts).soft - judge(pairs.second, pairs.texts).soft
    decided = gap.abs() > 1e-4
    first = score_images(model, pairs.first, pairs.texts)
    second = score_images(model, pairs.second, pairs.texts)
    return float((((first > second) == (gap > 0)) & decided).sum() / decided.sum().clamp_min(1))
