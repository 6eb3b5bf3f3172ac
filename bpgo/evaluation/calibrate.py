"""The base policy's rewards on training prompts: the priors' anchor and the test of the premise."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import torch

from bpgo import loading
from bpgo.core.progress import Progress
from bpgo.core.rollout import rollout, rollout_noise
from bpgo.errors import NonFiniteError
from bpgo.files import atomic_path
from bpgo.models.embeddings import prompt_embeddings
from bpgo.prompts import read_prompts
from bpgo.records import Calibration, PromptBatch
from bpgo.settings import Settings


def calibrate(
    settings: Settings, experiment: str, prompts: Path, output: Path, threads: int = 1
) -> None:
    """Sample the base policy with the training sampler, score with every reward of the experiment.

    Writes `samples.parquet` (prompt_id, ambiguity, sample, reward, score) and `calibration.json`
    (the training reward's mean, standard deviation, minimum and mean by prompt).
    """
    loading.check_names(settings, experiment)
    wanted = settings.calibration
    batch = read_prompts(prompts, wanted.prompts)
    device = loading.prepare_process(settings, threads)
    policy = loading.load_policy(settings, device)
    embeddings = prompt_embeddings(policy, batch.texts, loading.embedding_cache(prompts))
    rewards = loading.load_rewards(settings, settings.rewards_of(experiment), device)
    sampler = settings.rollout
    stochastic = list(range(sampler.steps - sampler.deterministic_tail))
    group = wanted.samples_per_prompt
    at_once = max(1, sampler.batch_size // group)
    frames = []
    with Progress(f"{experiment}: calibrate", wanted.prompts) as progress:
        for start in range(0, wanted.prompts, at_once):
            rows = slice(start, min(start + at_once, wanted.prompts))
            noise = rollout_noise(
                policy.latent_shape,
                sampler.steps,
                wanted.seed,
                0,
                batch.ids[rows],
                group,
                wanted.shared_initial_noise,
            )
            index = torch.arange(rows.start, rows.stop).repeat_interleave(group)
            drawn = rollout(
                policy,
                embeddings.select(index),
                noise,
                policy.sigmas(sampler.steps),
                wanted.kernel,
                wanted.noise_level,
                stochastic,
                sampler.guidance_scale,
                sampler.batch_size,
            )
            chosen = batch[index.tolist()]
            for name, reward in rewards.items():
                scores = reward(drawn.images, chosen.texts).tolist()
                frames.append(_frame(chosen, group, name, scores))
            progress.step(rows.stop)
    table = pd.concat(frames, ignore_index=True)
    with atomic_path(output / "samples.parquet") as path:
        table.to_parquet(path, index=False)
    training = table[table.reward == settings.experiments[experiment].training_reward]
    summary(training).save(output / "calibration.json")


def _frame(chosen: PromptBatch, group: int, reward: str, scores: list[float]) -> pd.DataFrame:
    for prompt, score in zip(chosen.ids, scores, strict=True):
        if not math.isfinite(score):
            raise NonFiniteError(f"reward '{reward}' gives {score} for prompt '{prompt}'")
    return pd.DataFrame(
        {
            "prompt_id": chosen.ids,
            "ambiguity": chosen.ambiguities,
            "sample": [row % group for row in range(len(chosen))],
            "reward": reward,
            "score": scores,
        }
    )


def summary(samples: pd.DataFrame) -> Calibration:
    """A `Calibration` from rows of one reward (columns prompt_id, score)."""
    means = samples.groupby("prompt_id").score.mean()
    return Calibration(
        mean=float(samples.score.mean()),
        std=float(samples.score.std()),
        minimum=float(samples.score.min()),
        prompt_means={str(prompt): float(value) for prompt, value in means.items()},
    )
