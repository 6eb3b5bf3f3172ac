"""Draw the base policy's samples of training prompts, by which calibrations score it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bpgo.config.jobs import draw_digest
from bpgo.config.runs import Sampler
from bpgo.config.settings import RolloutSettings, Settings
from bpgo.core.arm import make_plan
from bpgo.core.layout import Layout
from bpgo.core.rollout import chunks, rollout, rollout_noise
from bpgo.errors import UserError, suggest
from bpgo.interfaces import Policy, PromptEmbeddings
from bpgo.models.embeddings import prompt_embeddings
from bpgo.records import Plan, PromptBatch
from bpgo.run import memory
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.steps.draws import save_draws
from bpgo.steps.prompts import read_prompts

LARGEST = 192  # samples that `rollout.batch_size: auto` takes at a time at most


def draw(settings: Settings, name: str, prompts: Path, output: Path, threads: int = 1) -> None:
    """Sample the base policy on training prompts with the sampler `name`; write `draws.json`.

    `output` is its path; the final latents lie beside it (see `bpgo.steps.draws`). The sampler is
    that of the arm that the others are compared with, but each sample starts from noise of its own
    even if the arms' groups share it: shared starts make the samples of a group alike, and their
    mean says less about the prompt (8 of them are worth 2.4 independent ones).

    Raises:
        UserError: for a sampler that no experiment has, or too few prompts.
    """
    known = {sampler.name: sampler for sampler in settings.samplers()}
    if name not in known:
        raise UserError(
            f"--sampler: '{name}' is unknown.{suggest(name, known)} Known: {', '.join(known)}"
        )
    wanted = settings.calibration
    everything = read_prompts(prompts, wanted.prompts)
    batch = everything[: wanted.prompts]
    device = loading.prepare_process(settings, threads)
    policy = loading.load_policy(settings, device, wanted.seed)
    embeddings = prompt_embeddings(policy, everything, loading.embedding_cache(prompts))
    digest = draw_digest(settings, known[name])
    with Progress(f"{name}: draw", wanted.prompts) as progress:
        parts = _parts(settings, policy, known[name], embeddings, batch, progress)
        save_draws(output, digest, batch, wanted.samples_per_prompt, parts)


def _parts(
    settings: Settings,
    policy: Policy,
    sampler: Sampler,
    embeddings: PromptEmbeddings,
    batch: PromptBatch,
    progress: Progress,
) -> Iterator[Tensor]:
    """Final latents `[b, ...]`, group by group: one group of samples per prompt of `batch`."""
    wanted, sizes = settings.calibration, settings.rollout
    group = wanted.samples_per_prompt
    trial = memory.Trial(policy, embeddings, sizes.guidance_scale, gradient=False)
    size = sizes.batch_size
    if size == "auto":
        size = memory.fitting_batch_size(trial, min(len(batch), LARGEST // group) * group)
    for rows in chunks(len(batch), max(1, size // group)):
        ids = batch.ids[rows]
        plan = _independent(sampler, sizes, len(ids), group)
        noise = rollout_noise(policy.latent_shape, sizes.steps, wanted.seed, 0, ids, plan.noise_of)
        index = torch.arange(rows.start, rows.stop).repeat_interleave(group)
        with memory.explained("calibration", size, trial, len(index)):
            drawn = rollout(
                policy,
                embeddings.select(index),
                noise,
                policy.sigmas(sizes.steps),
                sampler.kernel,
                sampler.noise_level,
                plan,
                Layout(len(ids), group, size),
                sizes.guidance_scale,
            )
        yield drawn.latents[:, -1]
        progress.add(len(ids))


def _independent(sampler: Sampler, sizes: RolloutSettings, prompts: int, group: int) -> Plan:
    """Steps as the sampler takes them, each sample with noise of its own."""
    sizes = sizes.model_copy(update={"prompts_per_iteration": prompts, "group_size": group})
    steps = list(range(sampler.noisy_steps(sizes.steps, sizes.deterministic_tail)))
    own = [[sample] * (sizes.steps + 1) for sample in range(group)]
    return make_plan(sizes, steps, own, torch.zeros(prompts * group, 0, dtype=torch.long))
