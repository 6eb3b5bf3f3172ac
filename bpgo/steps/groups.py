"""Groups of the base policy on training prompts, as training draws them, with their scores."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from bpgo import seeding
from bpgo.config.offline import groups_digest, scored_rewards
from bpgo.config.settings import Settings
from bpgo.core.alike import alike_rows
from bpgo.core.arm import Arm
from bpgo.core.layout import Layout
from bpgo.core.rollout import prompts_of, rollout, rollout_noise
from bpgo.core.scoring import score_latents
from bpgo.errors import NonFiniteError
from bpgo.interfaces import Policy, PromptEmbeddings, Reward
from bpgo.models.embeddings import prompt_embeddings
from bpgo.records import PromptBatch, Samples
from bpgo.run import memory
from bpgo.run.progress import Progress
from bpgo.steps import loading
from bpgo.steps.group_table import save_groups
from bpgo.steps.prompts import read_prompts


def groups(
    settings: Settings, arm: str, seed: int, prompts: Path, output: Path, threads: int = 1
) -> None:
    """Draw the groups that training with `seed` would see if nothing were learned; score them.

    Prompts, their order, the noise (a shared start, where the arm has it) and the kernel are those
    of `arm`, the reference arm of the experiments that `output` serves: so the first iteration is a
    run's own. `output` is a table of samples (`bpgo.steps.group_table`) with the scores of every
    reward that these experiments train on, that their trust rules may read, and of the oracle.

    Raises:
        UserError: for an arm that is no experiment's reference, an experiment without an oracle,
            and too few prompts.
        NonFiniteError: naming the reward and prompt.
    """
    names = scored_rewards(settings, arm)
    sizes, total = settings.rollout, settings.trust_groups.iterations
    everything = read_prompts(prompts, sizes.prompts_per_iteration)
    device = loading.prepare_process(settings, threads)
    policy = loading.load_policy(settings, device, seed)
    embeddings = prompt_embeddings(policy, everything, loading.embedding_cache(prompts))
    rewards = loading.load_rewards(settings, names, device)
    drawing = loading.load_arm(settings, arm)
    tables = []
    with Progress(f"{arm}, seed {seed}: groups", total) as progress:
        for iteration in range(1, total + 1):
            chosen = prompts_of(everything, sizes.prompts_per_iteration, seed, iteration)
            rows = _rows_of(everything, chosen, sizes.group_size)
            drawn = _draw(
                settings, policy, drawing, embeddings.select(rows), chosen, seed, iteration
            )
            tables.append(_table(policy, drawn, rewards, everything[rows.tolist()], iteration))
            progress.step(iteration)
    save_groups(output, groups_digest(settings, arm), pd.concat(tables, ignore_index=True))


def _rows_of(everything: PromptBatch, chosen: PromptBatch, group: int) -> Tensor:
    """Of each sample the row of its prompt `[B]`."""
    index = {prompt: row for row, prompt in enumerate(everything.ids)}
    return torch.tensor([index[prompt] for prompt in chosen.ids]).repeat_interleave(group)


def _draw(
    settings: Settings,
    policy: Policy,
    arm: Arm,
    embeddings: PromptEmbeddings,
    chosen: PromptBatch,
    seed: int,
    iteration: int,
) -> Tensor:
    """Final latents `[B, ...]` of an iteration's groups."""
    sizes = settings.rollout
    trial = memory.Trial(policy, embeddings, sizes.guidance_scale, gradient=False)
    size = sizes.batch_size
    if size == "auto":
        size = memory.fitting_batch_size(trial, len(embeddings))
    plan = arm.plan(sizes, iteration, seeding.generator(seed, "trained_steps", iteration))
    noise = rollout_noise(
        policy.latent_shape, sizes.steps, seed, iteration, chosen.ids, plan.noise_of
    )
    alike = alike_rows(plan, sizes.group_size)
    with memory.explained("groups", size, trial, len(noise)):
        drawn = rollout(
            policy,
            embeddings,
            noise,
            policy.sigmas(sizes.steps),
            arm.kernel,
            arm.noise_level,
            plan,
            Layout(len(chosen), sizes.group_size, size, alike=alike),
            sizes.guidance_scale,
        )
    return drawn.latents[:, -1]


def _table(
    policy: Policy,
    latents: Tensor,
    rewards: dict[str, Reward],
    prompts: PromptBatch,
    iteration: int,
) -> pd.DataFrame:
    """Scores of the samples of one iteration; `prompts` has the prompt of each."""

    def call(samples: Samples) -> dict[str, Tensor]:
        found = {}
        for name, reward in rewards.items():
            with memory.reward_explained(f"groups, reward '{name}'"):
                found[name] = reward(samples).float().cpu()
        return found

    found = score_latents(latents, prompts, policy.settings, policy.decode, call)
    for name, values in found.items():
        for prompt, value in zip(prompts.ids, values.tolist(), strict=True):
            if not math.isfinite(value):
                raise NonFiniteError(f"reward '{name}' gives {value} for prompt '{prompt}'")
    group = prompts.ids.count(prompts.ids[0])
    return pd.DataFrame(
        {
            "iteration": iteration,
            "prompt_id": prompts.ids,
            "ambiguity": prompts.ambiguities,
            "sample": [row % group for row in range(len(prompts))],
            **{name: values.numpy() for name, values in found.items()},
        }
    )
