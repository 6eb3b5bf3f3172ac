"""What one candidate does with one tuning seed: signal-to-noise, and a training of each anchor."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from bpgo.config.search import ANCHORS, GOOD, Search
from bpgo.core.rollout import chunks, initial_noise, sample
from bpgo.core.scoring import samples_for
from bpgo.core.trainer import Trainer
from bpgo.errors import NonFiniteError
from bpgo.interfaces import PromptEmbeddings
from bpgo.models.embeddings import prompt_embeddings
from bpgo.records import Calibration, PromptBatch
from bpgo.run.folder import RowLog
from bpgo.run.progress import Progress, read_lines
from bpgo.steps import loading
from bpgo.steps.prompts import read_prompts, write_prompts
from bpgo.steps.train import build_trainer
from bpgo.tools.instrument.signal import batch_gradients, signal_to_noise

# The anchors put other rewards in the place of the training reward: nothing reads its scale.
UNSCALED = Calibration(mean=0.0, std=1.0, minimum=0.0)


@dataclass(frozen=True)
class Job:
    """A candidate and a seed, with the folder for prompts, embeddings and logs."""

    search: Search
    candidate: str
    seed: int
    folder: Path
    threads: int

    @property
    def title(self) -> str:
        """For progress."""
        return f"{self.candidate}, seed {self.seed}"

    def prompts(self, split: str) -> Path:
        """The file of a prompt set."""
        return self.folder / "prompts" / f"{split}.jsonl"

    def trainer(self, anchor: str, device: str, part: str) -> Trainer:
        """An anchor before its first iteration."""
        settings, calibration = self.search.settings[self.candidate], self.folder / "scale.json"
        UNSCALED.save(calibration)
        run, output = self.search.run(anchor, self.seed), self.folder / part
        output.mkdir()
        train = self.prompts("train")
        return build_trainer(settings, run, train, calibration, output, device)


def measure(search: Search, candidate: str, seed: int, threads: int = 1) -> dict[str, Any]:
    """Everything that the search says of a candidate with one seed, as JSON takes it.

    `signal`: signal-to-noise of the oracle anchor's gradient at the base policy, its standard
    error, processor seconds an iteration. `anchors`: of each its processor seconds of training,
    and its course; each evaluation has the judging reward's gain over the base policy on the
    evaluation prompts, by the policy as it is judged (the average, where there is one), and since
    the last one the mean of that reward on rollouts and of the share of ratios that were clipped.

    Raises:
        UserError: for files that cannot be read.
        NonFiniteError: for a reward, loss or gradient that is not a number.
    """
    settings = search.settings[candidate]
    device = loading.prepare_process(settings, threads)
    with tempfile.TemporaryDirectory() as place:
        job = Job(search, candidate, seed, Path(place), threads)
        for split in ("train", "evaluation"):
            write_prompts(settings, split, job.prompts(split))
        return {
            "candidate": candidate,
            "seed": seed,
            "digest": search.digest(candidate, seed),
            "signal": _signal(job, device),
            "anchors": {anchor: _course(job, anchor, device) for anchor in ANCHORS},
        }


def _signal(job: Job, device: str) -> dict[str, float]:
    trainer, batches = job.trainer(GOOD, device, "signal"), job.search.sizes.batches
    start = time.process_time()
    gradients = batch_gradients(trainer, batches)
    seconds = (time.process_time() - start) / batches
    ratio, error = signal_to_noise(gradients)
    return {"ratio": ratio, "standard_error": error, "seconds": seconds}


def _course(job: Job, anchor: str, device: str) -> dict[str, Any]:
    """Train an anchor and judge it every so often."""
    sizes, trainer = job.search.sizes, job.trainer(anchor, device, anchor)
    judge = _Judge.of(job, trainer)
    before, spent = judge.mean(), 0.0
    log = job.folder / anchor / "rollouts.jsonl"
    rows, clipped, course = RowLog(log, 0), [], []
    with Progress(f"{job.title}: {anchor}", sizes.iterations) as progress:
        for iteration in range(1, sizes.iterations + 1):
            start = time.process_time()
            entry = trainer.iterate(iteration, rows)
            spent += time.process_time() - start
            clipped.append(float(entry["clip_fraction"]))
            progress.step(iteration)
            if iteration % sizes.evaluate_every:
                continue
            recent = read_lines(log)[-sizes.evaluate_every :]
            course.append(
                {
                    "iteration": iteration,
                    "gain": judge.mean() - before,
                    "rollout": fmean(_mean(line["diagnostics"][judge.name]) for line in recent),
                    "clipped": fmean(clipped[-sizes.evaluate_every :]),
                }
            )
    rows.close()
    return {"base": before, "seconds": spent, "course": course}


def _mean(groups: list[list[float]]) -> float:
    return fmean(value for group in groups for value in group)


@dataclass(frozen=True)
class _Judge:
    """The judging reward on the first evaluation prompts, with a run's own noise."""

    name: str
    trainer: Trainer
    prompts: PromptBatch
    embeddings: PromptEmbeddings
    noise: Tensor

    @classmethod
    def of(cls, job: Job, trainer: Trainer) -> _Judge:
        file, count = job.prompts("evaluation"), job.search.sizes.prompts
        prompts = read_prompts(file, count)[:count]
        policy = trainer.policy
        embeddings = prompt_embeddings(policy, prompts, loading.embedding_cache(file))
        names = [(prompt, 0) for prompt in prompts.ids]
        noise = initial_noise(policy.latent_shape, job.seed, "evaluation", names)
        return cls(job.search.truth, trainer, prompts, embeddings, noise)

    def mean(self) -> float:
        """Of the policy as it is judged now."""
        settings, policy = self.trainer.settings, self.trainer.policy
        size = settings.evaluation.batch_size
        sigmas = policy.sigmas(settings.evaluation.steps, evaluation=True)
        scores = []
        with self.trainer.as_judged():
            made = sample(
                policy, self.embeddings, self.noise, sigmas, settings.judging_guidance, size
            )
            for rows, pixels in zip(chunks(len(self.noise), size), made, strict=True):
                samples = samples_for(pixels, self.prompts[rows], settings.model)
                scores.append(self.trainer.diagnostics[self.name](samples).double().cpu())
        found = float(torch.cat(scores).mean())
        if not math.isfinite(found):
            raise NonFiniteError(f"reward '{self.name}' gives {found} on evaluation prompts")
        return found
