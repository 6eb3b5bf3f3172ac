"""Measure what training did to a policy beside its scores: divergence, diversity, distance.

Rows of what is written: iteration, measure, prompt_id, value.

- `kl`: of each policy that was kept, on the first `evaluation.divergence_prompts` prompts, along
  paths of the sampler that draws the calibration (`Settings.sampler_of`).
- `vendi`, `distance`: of the final policy, `evaluation.diversity_samples` samples of each of the
  first `evaluation.diversity_prompts` prompts, by the configuration's features.
- `kid`: one number, of the final policy's evaluation samples against the base policy's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bpgo.config import contents
from bpgo.config.given_files import folder_of
from bpgo.config.runs import Run
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.core.divergence import path_kl
from bpgo.core.rollout import chunks, initial_noise, sample
from bpgo.core.spread import kernel_distance, mean_distance, vendi_score
from bpgo.errors import NonFiniteError, UserError
from bpgo.interfaces import Policy, PromptEmbeddings
from bpgo.models.embeddings import prompt_embeddings
from bpgo.records import PromptBatch, Samples
from bpgo.run import memory
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.steps.given_policies import loaded_with
from bpgo.steps.kept_policies import check_policies, failure_of, stages_of
from bpgo.steps.prompts import read_prompts
from bpgo.steps.stored_samples import StoredSamples, digests_of
from bpgo.storage.tables import read_table, write_table

if TYPE_CHECKING:
    from bpgo.interfaces import Features

Row = tuple[int, str, str, float]


def harm_run(
    settings: Settings,
    run: Run,
    prompts: Path,
    trained: Path,
    samples: Path,
    base: Path,
    output: Path,
    threads: int = 1,
) -> None:
    """Measure a trained run, whose policies are in `trained`, and write `output`, Parquet.

    `samples` and `base` are the folders of the run's and of the base policy's evaluation samples,
    of the same seed.

    Raises:
        UserError: for an unknown run, the base policy, and samples that cannot be read.
        NonFiniteError: for a divergence that is not finite.
    """
    loading.check_run(settings, run)
    if run.arm == BASE_ARM:
        raise UserError(f"--arm: '{BASE_ARM}' is the untrained policy: `harm-base` measures it")
    if run.arm in settings.policies:
        stages = [(0, folder_of(settings.policies[run.arm]))]
    elif failure_of(trained) is not None:
        _write([], output, contents.harm(settings, run))
        return
    else:
        check_policies(settings, run, trained)
        stages = stages_of(settings, trained)
    own = loaded_with(settings, run.arm)
    device = loading.prepare_process(own, threads)
    rows: list[Row] = []
    if settings.evaluation.divergence_prompts or settings.draws_diversity:
        work = _Work(settings, run.seed, prompts, device, own)
        rows += work.divergences(settings, run, stages)
        if settings.draws_diversity:
            work.policy.load_trained(stages[-1][1])
            rows += work.diversity(stages[-1][0])
    if settings.features is not None:
        features = loading.load_features(settings, device)
        last = stages[-1][0]
        distance = _distance(settings, run, features, samples, base, last)
        rows.append((last, "kid", "", distance))
    _write(rows, output, contents.harm(settings, run))


def harm_base(settings: Settings, seed: int, prompts: Path, output: Path, threads: int = 1) -> None:
    """The diversity of the base policy, for every experiment."""
    device = loading.prepare_process(settings, threads)
    rows = _Work(settings, seed, prompts, device, settings.of_arm(BASE_ARM)).diversity(0)
    _write(rows, output, contents.harm(settings, Run("", BASE_ARM, seed)))


class _Work:
    """The policy, which starts as the base and is loaded with `own`, and evaluation prompts."""

    def __init__(
        self, settings: Settings, seed: int, prompts: Path, device: str, own: Settings
    ) -> None:
        self.settings, self.seed, self.device = settings, seed, device
        self.batch = read_prompts(prompts, settings.evaluation.prompts)
        self.policy: Policy = loading.load_policy(own, device, seed)
        cache = loading.embedding_cache(prompts)
        self.embeddings: PromptEmbeddings = prompt_embeddings(self.policy, self.batch, cache)

    def divergences(
        self, settings: Settings, run: Run, stages: list[tuple[int, Path]]
    ) -> Iterator[Row]:
        """`kl` of each policy that was kept."""
        count = settings.evaluation.divergence_prompts
        if not count:
            return
        base, sampler = self.policy.reference_velocity(), settings.sampler_of(run.experiment)
        steps = settings.rollout.steps
        stochastic = sampler.noisy_steps(steps, settings.rollout.deterministic_tail)
        names = [(prompt, 0) for prompt in self.batch.ids[:count]]
        shape = (stochastic + 1, *self.policy.latent_shape)
        noise = initial_noise(shape, self.seed, "divergence", names)
        guidance, size = settings.rollout.guidance_scale, settings.evaluation.batch_size
        trial = memory.Trial(self.policy, self.embeddings, guidance, gradient=False)
        with Progress(f"{run.folder}: divergence", len(stages)) as progress:
            for done, (iteration, folder) in enumerate(stages, start=1):
                self.policy.load_trained(folder)
                with memory.explained("sampling", size, trial, count, key="evaluation"):
                    found = path_kl(
                        self.policy,
                        base,
                        self.embeddings.select(slice(0, count)),
                        noise,
                        self.policy.sigmas(steps),
                        sampler.kernel,
                        sampler.noise_level,
                        guidance,
                        size,
                    )
                for (prompt, _), value in zip(names, found.tolist(), strict=True):
                    yield iteration, "kl", prompt, value
                progress.step(done)

    def diversity(self, iteration: int) -> Iterator[Row]:
        """`vendi` and `distance` of the policy as it is, prompt by prompt."""
        features = loading.load_features(self.settings, self.device)
        wanted = self.settings.evaluation
        group = wanted.diversity_samples
        batch = self.batch[: wanted.diversity_prompts]
        with Progress(f"seed_{self.seed}: diversity", len(batch)) as progress:
            for rows in chunks(len(batch), max(1, wanted.batch_size // group)):
                found = self._drawn(features, batch[rows], rows, group)
                for prompt, own in zip(batch.ids[rows], found, strict=True):
                    yield iteration, "vendi", prompt, vendi_score(own)
                    yield iteration, "distance", prompt, mean_distance(own)
                progress.add(len(found))

    def _drawn(self, features: Features, batch: PromptBatch, rows: slice, group: int) -> Tensor:
        """Features `[P, G, D]` of new samples of P prompts; the first is the evaluation's."""
        wanted = self.settings.evaluation
        names = [(prompt, k) for prompt in batch.ids for k in range(group)]
        index = torch.arange(rows.start, rows.stop).repeat_interleave(group)
        texts = [text for text in batch.texts for _ in range(group)]
        guidance = self.settings.judging_guidance
        trial = memory.Trial(self.policy, self.embeddings, guidance, gradient=False)
        found: list[Tensor] = []
        with memory.explained("sampling", wanted.batch_size, trial, len(index), key="evaluation"):
            parts = sample(
                self.policy,
                self.embeddings.select(index),
                initial_noise(self.policy.latent_shape, self.seed, "evaluation", names),
                self.policy.sigmas(wanted.steps, evaluation=True),
                guidance,
                wanted.batch_size,
            )
            for part in parts:
                stored = (part * 255).round() / 255  # as files hold it
                at = sum(len(each) for each in found)
                found.append(features(Samples(stored, texts[at : at + len(part)])).float().cpu())
        return torch.cat(found).unflatten(0, (len(batch), group))


def _distance(
    settings: Settings, run: Run, features: Features, samples: Path, base: Path, last: int
) -> float:
    """KID of the first sample of each prompt, of the policy `last` and of the base policy."""
    sets = []
    for folder, mine, wanted in ((samples, run, last), (base, Run("", BASE_ARM, run.seed), 0)):
        of = contents.samples(settings, mine)
        index = read_table(folder / "index.parquet", "run `sample` again", of=of)
        index = index[(index["iteration"] == wanted) & (index["sample"] == 0)]
        index = index.sort_values("prompt_id", ignore_index=True)
        sets.append((folder, index))
    if sets[0][1]["prompt_id"].tolist() != sets[1][1]["prompt_id"].tolist():
        raise UserError(f"{samples} and {base} hold samples of other prompts; run `sample` again")
    first, second = (_features(settings, features, *each) for each in sets)
    return kernel_distance(first, second)


def _features(settings: Settings, features: Features, folder: Path, index: Any) -> Tensor:
    """`[N, D]` of the samples of an index."""
    stored = StoredSamples(folder, index.path.tolist(), digests=digests_of(index))
    texts, size = index.text.tolist(), settings.evaluation.batch_size
    parts = [
        features(Samples(stored.read(rows).float() / 255, texts[rows])).float().cpu()
        for rows in chunks(len(index), size)
    ]
    return torch.cat(parts)


def _write(rows: Any, output: Path, of: str) -> None:
    table = pd.DataFrame(rows, columns=["iteration", "measure", "prompt_id", "value"])
    bad = table[~np.isfinite(table["value"].astype(float))]
    if len(bad):
        row = bad.iloc[0]
        raise NonFiniteError(
            f"{output}: {row['measure']} of prompt '{row['prompt_id']}' at iteration"
            f" {row['iteration']} is {row['value']}"
        )
    write_table(table, output, of)
