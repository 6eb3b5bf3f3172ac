"""What the base policy earns of the training reward: the priors' anchor and the rewards' scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from bpgo.config import contents
from bpgo.config.jobs import calibrated_rewards, draw_digest
from bpgo.config.settings import MAIN, Settings
from bpgo.core.rollout import chunks
from bpgo.interfaces import Reward
from bpgo.prompts.first_frames import read_first_frames
from bpgo.records import Calibration, PromptBatch, Samples
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.steps.draw_scores import (
    call,
    save_scores,
    scales,
    score_draws,
    score_frame,
    score_table,
)
from bpgo.steps.draws import open_draws
from bpgo.steps.prompts import read_prompts
from bpgo.steps.sums import with_sums

STILLS = 32  # first frames scored at a time


def calibrate(
    settings: Settings,
    experiment: str,
    prompts: Path,
    draws: Path,
    output: Path,
    threads: int = 1,
) -> None:
    """Score the base policy's samples of training prompts (`draws`, from `draw`).

    Writes `calibration.json`, the training reward under the training sampler (mean, standard
    deviation, minimum, mean by prompt), on which training depends. While the samples are decoded,
    the judges score them too: `scores.parquet` keeps all scores, each with the digest of what it
    depends on, for `judge`.

    Raises:
        UserError: for an unknown experiment, and samples that are missing, damaged or others'.
        NonFiniteError: naming the reward and prompt.
    """
    loading.check_experiment(settings, experiment)
    wanted = settings.calibration
    everything = read_prompts(prompts, wanted.prompts)
    drawn = draw_digest(settings, settings.sampler_of(experiment))
    samples = open_draws(draws, drawn, everything[: wanted.prompts], wanted.samples_per_prompt)
    device = loading.prepare_process(settings, threads)
    policy = loading.load_decoder(settings, device)
    names = calibrated_rewards(settings, experiment)
    # Other environments' rewards only judge.
    judges = settings.in_environment(experiment, MAIN)
    models = settings.models_of([*judges, *names])
    rewards = loading.load_rewards(settings, models, device)
    with Progress(f"{experiment}: calibrate", wanted.prompts) as progress:
        table = score_table(samples, models, score_draws(policy, samples, rewards, progress))
    of = contents.calibration_scores(settings, experiment)
    save_scores(output / "scores.parquet", settings, drawn, table, of)
    anchor = Calibration(0.0, 0.0, 0.0, parts=scales(settings, names, table))
    training = settings.experiments[experiment].training_reward
    table = with_sums(settings, [training], table, anchor)
    found = replace(summary(table[table.reward == training]), parts=anchor.parts)
    if settings.model.task == "i2v":
        stills = _first_frames(settings, experiment, everything, rewards, device)
        stills = with_sums(settings, [training], stills, anchor)
        earned = summary(stills[stills.reward == training]).prompt_means
        found = replace(found, first_frames=earned)
    found.save(output / "calibration.json", contents.calibration(settings, experiment))


def _first_frames(
    settings: Settings, experiment: str, batch: PromptBatch, rewards: dict[str, Reward], device: str
) -> pd.DataFrame:
    """What each prompt's first frame earns, shown for as long as a clip: one row a prompt."""
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
            found = call(name, rewards[name], samples)
            frames.append(score_frame(chosen, 1, name, found.tolist()))
    return pd.concat(frames, ignore_index=True)


def summary(samples: pd.DataFrame) -> Calibration:
    """A `Calibration` from rows of one reward (columns prompt_id, score)."""
    means = samples.groupby("prompt_id").score.mean()
    return Calibration(
        mean=float(samples.score.mean()),
        std=float(samples.score.std()),
        minimum=float(samples.score.min()),
        prompt_means={str(prompt): float(value) for prompt, value in means.items()},
    )
