"""The base policy's rewards on training prompts: the priors' anchor and the test of the premise."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from bpgo.config.settings import MAIN, RolloutSettings, Settings
from bpgo.core.arm import Arm, make_plan
from bpgo.core.layout import Layout
from bpgo.core.rollout import chunks, rollout, rollout_noise
from bpgo.core.scoring import score_latents
from bpgo.errors import NonFiniteError
from bpgo.interfaces import Policy, PromptEmbeddings, Reward
from bpgo.models.embeddings import prompt_embeddings
from bpgo.prompts.first_frames import read_first_frames
from bpgo.records import Calibration, Plan, PromptBatch, Samples
from bpgo.run import memory
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.steps.prompts import read_prompts
from bpgo.steps.sums import with_sums
from bpgo.storage.files import atomic_path

STILLS = 32  # first frames scored at a time
LARGEST = 192  # samples that `rollout.batch_size: auto` takes at a time at most


def calibrate(
    settings: Settings, experiment: str, prompts: Path, output: Path, threads: int = 1
) -> None:
    """Sample the base policy on training prompts and score the samples.

    Writes `calibration.json`, the training reward under the training sampler (mean, standard
    deviation, minimum, mean by prompt), and `samples.parquet` (prompt_id, ambiguity, sample,
    reward, score) with the scores of every reward, which tests the paper's premise. The sampler is
    that of the arm that the others are compared with, but each sample starts from noise of its own
    even if the arms' groups share it: shared starts make the samples of a group alike, and their
    mean says less about the prompt (8 of them are worth 2.4 independent ones).
    """
    loading.check_experiment(settings, experiment)
    wanted = settings.calibration
    everything = read_prompts(prompts, wanted.prompts)
    batch = everything[: wanted.prompts]
    device = loading.prepare_process(settings, threads)
    policy = loading.load_policy(settings, device, wanted.seed)
    embeddings = prompt_embeddings(policy, everything, loading.embedding_cache(prompts))
    # Other environments' rewards only judge.
    names = settings.in_environment(experiment, MAIN)
    rewards = loading.load_rewards(settings, settings.models_of(names), device)
    training = settings.experiments[experiment].training_reward
    arm = loading.load_arm(settings, settings.calibrating_arm(experiment))
    with Progress(f"{experiment}: calibrate", wanted.prompts) as progress:
        table = _draw(settings, policy, arm, embeddings, batch, rewards, progress)
    scales = Calibration(0.0, 0.0, 0.0, parts=_parts(settings, names, table))
    table = with_sums(settings, names, table, scales)
    with atomic_path(output / "samples.parquet") as path:
        table.to_parquet(path, index=False)
    found = replace(summary(table[table.reward == training]), parts=scales.parts)
    if settings.model.task == "i2v":
        stills = _first_frames(settings, experiment, everything, rewards, device)
        stills = with_sums(settings, [training], stills, scales)
        earned = summary(stills[stills.reward == training]).prompt_means
        found = replace(found, first_frames=earned)
    found.save(output / "calibration.json")


def _parts(
    settings: Settings, names: list[str], table: pd.DataFrame
) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of every reward that a sum among `names` is made of."""
    found = {}
    sums = [settings.rewards[name].part_names() for name in names]
    for part in dict.fromkeys(part for parts in sums for part in parts):
        scores = table[table.reward == part].score
        found[part] = {"mean": float(scores.mean()), "std": float(scores.std())}
    return found


def _draw(
    settings: Settings,
    policy: Policy,
    arm: Arm,
    embeddings: PromptEmbeddings,
    batch: PromptBatch,
    rewards: dict[str, Reward],
    progress: Progress,
) -> pd.DataFrame:
    """Scores of one group of samples per prompt of `batch`."""
    wanted, sampler = settings.calibration, settings.rollout
    group = wanted.samples_per_prompt
    frames = []
    trial = memory.Trial(policy, embeddings, sampler.guidance_scale, gradient=False)
    size = sampler.batch_size
    if size == "auto":
        size = memory.fitting_batch_size(trial, min(len(batch), LARGEST // group) * group)
    for rows in chunks(len(batch), max(1, size // group)):
        plan = _independent(arm, sampler, len(batch.ids[rows]), group)
        noise = rollout_noise(
            policy.latent_shape, sampler.steps, wanted.seed, 0, batch.ids[rows], plan.noise_of
        )
        index = torch.arange(rows.start, rows.stop).repeat_interleave(group)
        with memory.explained("calibration", size, trial, len(index)):
            drawn = rollout(
                policy,
                embeddings.select(index),
                noise,
                policy.sigmas(sampler.steps),
                arm.kernel,
                arm.noise_level,
                plan,
                Layout(len(noise) // group, group, size),
                sampler.guidance_scale,
            )
        chosen = batch[index.tolist()]
        found = _score(policy, drawn.latents[:, -1], rewards, chosen)
        frames += [_frame(chosen, group, name, values.tolist()) for name, values in found.items()]
        progress.add(len(noise) // group)
    return pd.concat(frames, ignore_index=True)


def _independent(arm: Arm, sampler: RolloutSettings, prompts: int, group: int) -> Plan:
    """All steps as the arm's kernel takes them, each sample with noise of its own."""
    sizes = sampler.model_copy(update={"prompts_per_iteration": prompts, "group_size": group})
    steps = [] if arm.kernel == "ode" else list(range(sizes.steps - sizes.deterministic_tail))
    own = [[sample] * (sizes.steps + 1) for sample in range(group)]
    return make_plan(sizes, steps, own, torch.zeros(prompts * group, 0, dtype=torch.long))


def _score(
    policy: Policy, latents: Tensor, rewards: dict[str, Reward], chosen: PromptBatch
) -> dict[str, Tensor]:
    """Scores `[B]` of the samples of `latents` by each reward."""

    def call(samples: Samples) -> dict[str, Tensor]:
        return {name: _call(name, reward, samples) for name, reward in rewards.items()}

    return score_latents(latents, chosen, policy.settings, policy.decode, call)


def _call(name: str, reward: Reward, samples: Samples) -> Tensor:
    with memory.reward_explained(f"calibration, reward '{name}'"):
        return reward(samples)


def _first_frames(
    settings: Settings, experiment: str, batch: PromptBatch, rewards: dict[str, Reward], device: str
) -> pd.DataFrame:
    """What each prompt's first frame earns, shown for as long as a clip: rows as `_draw` has."""
    training = settings.experiments[experiment].training_reward
    frames = []
    for rows in chunks(len(batch), STILLS):
        chosen = batch[rows]
        given = read_first_frames(chosen.first_frames, settings.model)
        assert given is not None  # image to video
        given = given.to(device)
        clips = given[:, None].expand(-1, settings.model.frames, -1, -1, -1)
        samples = Samples(clips, chosen.texts, given)
        for name in settings.models_of([training]):
            found = _call(name, rewards[name], samples)
            frames.append(_frame(chosen, 1, name, found.tolist()))
    return pd.concat(frames, ignore_index=True)


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
