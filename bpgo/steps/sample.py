"""Sample a policy, and its snapshots, with the evaluation sampler on held-out prompts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import torch

from bpgo.config import contents
from bpgo.config.given_files import folder_of
from bpgo.config.jobs import samples_folder
from bpgo.config.runs import Run
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.core.rollout import initial_noise, sample
from bpgo.errors import UserError
from bpgo.interfaces import Policy, PromptEmbeddings
from bpgo.models.embeddings import prompt_embeddings
from bpgo.records import PromptBatch
from bpgo.run import memory
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.steps.given_policies import loaded_with
from bpgo.steps.kept_policies import check_policies, failure_of, stages_of
from bpgo.steps.prompts import read_prompts
from bpgo.steps.saved_samples import save_samples
from bpgo.storage.clips import check_clips
from bpgo.storage.files import sha256
from bpgo.storage.tables import write_table

COLUMNS = ["prompt_id", "text", "ambiguity", "sample", "seed", "iteration", "path", "sha256"]
Stages = list[tuple[int, Path | None]]


def sample_run(
    settings: Settings,
    run: Run,
    prompts: Path,
    trained: Path,
    output: Path,
    threads: int = 1,
) -> None:
    """Write PNG files, or MP4 files of clips, and, last, `index.parquet`.

    The final policy is sampled on all evaluation prompts, each snapshot on the first
    `evaluation.curve_prompts`; a run that failed has an empty index. The noise is named by (seed,
    prompt id, sample): equal for every arm and snapshot, so rows of different arms pair. `trained`
    is the training run's folder. A policy that was given is iteration 0, and its files are where
    the settings say.

    Raises:
        UserError: for an unknown run, for the base policy, which `sample_base` samples, and for
            policies that are not those which the run has made.
    """
    loading.check_run(settings, run)
    if run.arm == BASE_ARM:
        raise UserError(f"--arm: '{BASE_ARM}' is the untrained policy: `sample-base` samples it")
    if run.arm in settings.policies:
        stages: Stages = [(0, folder_of(settings.policies[run.arm]))]
        _sample(settings, run, run.folder, prompts, stages, output, threads)
        return
    if (why := failure_of(trained)) is not None:
        print(f"{run.folder}: nothing to sample, the run failed: {why}", file=sys.stderr)
        of = contents.samples(settings, run)
        write_table(pd.DataFrame(columns=COLUMNS), output / "index.parquet", of)
        return
    check_policies(settings, run, trained)
    stages = [*stages_of(settings, trained)]
    _sample(settings, run, run.folder, prompts, stages, output, threads)


def sample_base(
    settings: Settings, seed: int, prompts: Path, output: Path, threads: int = 1
) -> None:
    """The same of the base policy (iteration 0), once for every experiment."""
    run = Run("", BASE_ARM, seed)
    _sample(settings, run, samples_folder(run, settings), prompts, [(0, None)], output, threads)


def _sample(
    settings: Settings,
    run: Run,
    title: str,
    prompts: Path,
    stages: Stages,
    output: Path,
    threads: int,
) -> None:
    """`stages` are (iteration, folder of weights), the base policy's without a folder."""
    wanted = settings.evaluation
    batch = read_prompts(prompts, wanted.prompts)[: wanted.prompts]
    if settings.model.makes == "video":
        check_clips(wanted.clip_quality, settings.model.resolution, settings.model.columns)
    own = loaded_with(settings, run.arm)
    device = loading.prepare_process(own, threads)
    policy = loading.load_policy(own, device, run.seed)
    embeddings = prompt_embeddings(policy, batch, loading.embedding_cache(prompts))
    tables = []
    with Progress(f"{title}: sample", len(stages)) as progress:
        for done, (iteration, folder) in enumerate(stages, start=1):
            if folder is not None:
                policy.load_trained(folder)
            last = done == len(stages)
            count = wanted.prompts if last else wanted.curve_prompts
            tables.append(
                _draw(settings, policy, batch[:count], embeddings, run.seed, iteration, output)
            )
            progress.step(done)
    index = pd.concat(tables, ignore_index=True)
    write_table(index, output / "index.parquet", contents.samples(settings, run))


def _draw(
    settings: Settings,
    policy: Policy,
    batch: PromptBatch,
    embeddings: PromptEmbeddings,
    seed: int,
    iteration: int,
    output: Path,
) -> pd.DataFrame:
    wanted = settings.evaluation
    names = [(prompt, k) for prompt in batch.ids for k in range(wanted.samples_per_prompt)]
    rows = torch.arange(len(batch)).repeat_interleave(wanted.samples_per_prompt)
    chosen = batch[rows.tolist()]
    trial = memory.Trial(policy, embeddings, settings.judging_guidance, gradient=False)
    with memory.explained("sampling", wanted.batch_size, trial, len(rows), key="evaluation"):
        parts = sample(
            policy,
            embeddings.select(rows),
            initial_noise(policy.latent_shape, seed, "evaluation", names),
            policy.sigmas(wanted.steps, evaluation=True),
            settings.judging_guidance,
            wanted.batch_size,
        )
        paths = save_samples(settings, parts, names, chosen.texts, output, iteration)
    index = pd.DataFrame(
        {
            "prompt_id": chosen.ids,
            "text": chosen.texts,
            "ambiguity": chosen.ambiguities,
            "sample": [k for _, k in names],
            "seed": seed,
            "iteration": iteration,
            "path": paths,
            "sha256": [sha256(output / path) for path in paths],
        }
    )
    if chosen.first_frames is not None:
        index["first_frame"] = [os.path.relpath(frame, output) for frame in chosen.first_frames]
    return index
