"""Draw samples from a policy: with an SDE kernel for training, with the ODE for judging.

Shape letters as in `bpgo.records`: B samples, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from bpgo import seeding
from bpgo.core.dpm_solver import DpmSolver
from bpgo.core.layout import Layout, Pass
from bpgo.core.sde import LogProbForm, Transition, log_prob, transition
from bpgo.interfaces import Guidance, Policy, PromptEmbeddings
from bpgo.records import Plan, PromptBatch, Rollout


def prompts_of(prompts: PromptBatch, size: int, seed: int, iteration: int) -> PromptBatch:
    """The `size` prompts of a training iteration, numbered from 1.

    Each epoch is a permutation of all, incomplete batches left out.
    """
    epoch, place = divmod(iteration - 1, len(prompts) // size)
    order = seeding.numpy_generator(seed, "prompts", epoch).permutation(len(prompts))
    return prompts[order[place * size : (place + 1) * size].tolist()]


def initial_noise(
    shape: tuple[int, ...], seed: int, purpose: str, names: list[tuple[str, int]]
) -> Tensor:
    """`[B, *shape]`: one draw per sample, named by (prompt id, sample index)."""
    draws = [
        torch.randn(shape, generator=seeding.generator(seed, purpose, prompt, sample))
        for prompt, sample in names
    ]
    return torch.stack(draws)


def rollout_noise(
    shape: tuple[int, ...],
    steps: int,
    seed: int,
    iteration: int,
    prompt_ids: list[str],
    noise_of: Tensor,
) -> Tensor:
    """All noise of a batch, `[B, T+1, *shape]`: the start, then one draw per step.

    Named by (run seed, iteration, prompt id, sample index), so it is the same for every arm,
    batch size and rank. `noise_of` `[B, T+1]` says whose draw of its group each sample has.
    """
    return _draws((steps + 1, *shape), seed, "rollout", iteration, prompt_ids, noise_of)


def fresh_noise(
    shape: tuple[int, ...], seed: int, iteration: int, prompt_ids: list[str], fresh_of: Tensor
) -> Tensor:
    """What finished samples are noised with again, `[B, K, *shape]`, one draw per trained point.

    Named like `rollout_noise`; `fresh_of` `[B, K]` says whose draw of its group each sample has.
    """
    names = (seed, "noised_again", iteration)
    return _draws((fresh_of.shape[1], *shape), *names, prompt_ids, fresh_of)


def _draws(
    shape: tuple[int, ...],
    seed: int,
    purpose: str,
    iteration: int,
    prompt_ids: list[str],
    taken_from: Tensor,
) -> Tensor:
    """`[B, *shape]`: at each place of the first dimension one of the group's draws, as said."""
    group = len(taken_from) // len(prompt_ids)
    rows = []
    for number, prompt in enumerate(prompt_ids):
        own = torch.stack(
            [
                torch.randn(
                    shape, generator=seeding.generator(seed, purpose, iteration, prompt, sample)
                )
                for sample in range(group)
            ]
        )
        chosen = taken_from[number * group : (number + 1) * group]
        rows.append(own[chosen, torch.arange(shape[0])])
    return torch.cat(rows)


@torch.no_grad()
def rollout(
    policy: Policy,
    prompts: PromptEmbeddings,
    noise: Tensor,
    sigmas: Tensor,
    kernel: str,
    noise_level: float,
    plan: Plan,
    layout: Layout,
    guidance_scale: Guidance = 1.0,
    channel: int | None = None,
) -> Rollout:
    """Sample `[B]` trajectories with stored latents and log-probabilities.

    Args:
        policy: the generator; its transformer is called once per step and forward pass.
        prompts: embeddings of the B samples (a group's prompt repeated); on the host or the device.
        noise: `[B, T+1, ...]` from `rollout_noise`.
        sigmas: `[T+1]`, falling.
        kernel: the SDE kernel of stochastic steps; every other step is an ODE step.
        noise_level: the kernel's eta.
        plan: which steps of which sample are stochastic, and how loud their noise is.
        layout: the rows of each forward pass. The update must use the same, or passes of the same
            size: another may round differently, and then ratios are not exactly 1.
        guidance_scale: passed to the policy.
        channel: the latents' channel dimension where log-probabilities are those of each site,
            summed over channels; None: the mean over all latent numbers.
    """
    sigmas, steps, batch = sigmas.to(policy.device), len(sigmas) - 1, len(noise)
    path = torch.zeros_like(noise, device=policy.device)
    path[:, 0] = noise[:, 0].to(policy.device)
    sites = () if channel is None else path[:, 0].select(channel, 0).shape[1:]
    log_probs = path.new_zeros(batch, steps, *sites)
    passes = {step: layout.at_step(step) for step in plan.levels()[:-1]}
    solver, solved_from = DpmSolver(), steps + 1 if plan.tail is None else plan.tail[0]
    for step, following in pairwise(plan.levels()):
        sigma, sigma_next = sigmas[step].expand(batch), sigmas[following].expand(batch)
        velocity = _velocity(policy, prompts, path[:, step], sigma, passes[step], guidance_scale)
        given = (velocity, path[:, step], sigma, sigma_next)
        if step >= solved_from:
            path[:, following] = solver.step(*given[:2], sigmas[step], sigmas[following])
            continue
        if following == solved_from:
            solver.remember(*given[:2], sigmas[step])
        noisy = plan.stochastic[:, step].to(path.device)
        if not noisy.all():
            path[:, step + 1] = transition("ode", *given).mean
        if noisy.any():
            moved = transition(kernel, *given, noise_level, sigma_max=sigmas[1])
            scale = 1 if plan.noise_scale is None else float(plan.noise_scale[step])
            drawn = noise[:, step + 1].to(path.device) * scale
            path[noisy, step + 1] = moved.sample(drawn)[noisy]
            scores = step_log_prob(kernel, path[:, step + 1], moved, channel)
            log_probs[noisy, step] = scores[noisy]
    computed = sum(one.count for each in passes.values() for one in each)
    return Rollout(
        path, log_probs, sigmas, policy.boundary, noise, channel=channel, passes=computed
    )


def _velocity(
    policy: Policy,
    prompts: PromptEmbeddings,
    latents: Tensor,
    sigma: Tensor,
    passes: list[Pass],
    guidance_scale: Guidance,
) -> Tensor:
    """`[B, ...]` at one step; samples that are still alike are computed once."""
    found = []
    for one in passes:
        rows = one.once(one.rows)
        embeddings = prompts.select(rows).to(policy.device, policy.dtype)
        given = (latents[rows], sigma[rows], embeddings)
        found.append(one.spread(policy.velocity(*given, guidance_scale)))
    back = torch.cat([one.rows for one in passes]).argsort()
    return torch.cat(found)[back.to(latents.device)]


def step_log_prob(
    kernel: str, next_latents: Tensor, moved: Transition, channel: int | None = None
) -> Tensor:
    """Log-probability of the latents a kernel drew; Flow-CPS has its own form.

    `[B]`, the mean over all latent numbers; with `channel` `[B, *sites]`, the sum over that
    dimension.
    """
    form: LogProbForm = "cps" if kernel == "cps" else "gaussian"
    if channel is None:
        return log_prob(next_latents, moved.mean, moved.std, form)
    return log_prob(next_latents, moved.mean, moved.std, form, "channel_sum", channel)


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: PromptEmbeddings,
    noise: Tensor,
    sigmas: Tensor,
    guidance_scale: Guidance = 1.0,
    batch_size: int = 96,
) -> Iterator[Tensor]:
    """Images `[b, 3, H, W]`, or clips, of the evaluation sampler (Euler ODE), chunk by chunk.

    `noise` `[B, ...]` is the start of each sample; `batch_size` samples are in a forward pass.
    """
    sigmas = sigmas.to(policy.device)
    for rows in chunks(len(noise), batch_size):
        latents = noise[rows].to(policy.device)
        embeddings = prompts.select(rows).to(policy.device, policy.dtype)
        for step in range(len(sigmas) - 1):
            sigma = sigmas[step].expand(len(latents))
            velocity = policy.velocity(latents, sigma, embeddings, guidance_scale)
            latents = latents + (sigmas[step + 1] - sigmas[step]) * velocity
        yield policy.decode(latents)


def chunks(total: int, size: int) -> list[slice]:
    """Slices of at most `size` rows that cover `total` rows in order."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
