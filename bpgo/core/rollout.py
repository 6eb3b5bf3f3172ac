"""Draw samples from a policy: with an SDE kernel for training, with the ODE for judging.

Shape letters as in `bpgo.records`: B samples, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bpgo import seeding
from bpgo.core.sde import LogProbForm, Transition, log_prob, transition
from bpgo.interfaces import Guidance, Policy, PromptEmbeddings
from bpgo.records import Rollout


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
    group_size: int,
    shared_initial_noise: bool,
) -> Tensor:
    """All noise of a batch, `[B, T+1, *shape]`: the start, then one draw per step.

    Named by (run seed, iteration, prompt id, sample index), so it is the same for every arm,
    batch size and rank. With `shared_initial_noise` a group starts from its first sample's noise.
    """
    rows = []
    for prompt in prompt_ids:
        group = [
            torch.randn(
                (steps + 1, *shape),
                generator=seeding.generator(seed, "rollout", iteration, prompt, sample),
            )
            for sample in range(group_size)
        ]
        if shared_initial_noise:
            for noise in group[1:]:
                noise[0] = group[0][0]
        rows += group
    return torch.stack(rows)


@torch.no_grad()
def rollout(
    policy: Policy,
    prompts: PromptEmbeddings,
    noise: Tensor,
    sigmas: Tensor,
    kernel: str,
    noise_level: float,
    stochastic_steps: list[int],
    guidance_scale: Guidance = 1.0,
    batch_size: int = 96,
) -> Rollout:
    """Sample `[B]` trajectories with stored latents and log-probabilities.

    Args:
        policy: the generator; its transformer is called once per step and chunk of `batch_size`.
        prompts: embeddings of the B samples (a group's prompt repeated); on the host or the device.
        noise: `[B, T+1, ...]` from `rollout_noise`.
        sigmas: `[T+1]`, falling.
        kernel: the SDE kernel of `stochastic_steps`; every other step is an ODE step.
        noise_level: the kernel's eta.
        stochastic_steps: step numbers, from 0.
        guidance_scale: passed to the policy.
        batch_size: samples in one forward pass. The update must use the same chunks: a forward
            pass of another size may round differently, and then ratios are not exactly 1.
    """
    latents, log_probs = [], []
    for rows in chunks(len(noise), batch_size):
        path, scores = _trajectory(
            policy,
            prompts.select(rows).to(policy.device, policy.dtype),
            noise[rows].to(policy.device),
            sigmas.to(policy.device),
            kernel,
            noise_level,
            set(stochastic_steps),
            guidance_scale,
        )
        latents.append(path)
        log_probs.append(scores)
    return Rollout(
        torch.cat(latents), torch.cat(log_probs), sigmas.to(policy.device), policy.boundary
    )


def _trajectory(
    policy: Policy,
    prompts: PromptEmbeddings,
    noise: Tensor,
    sigmas: Tensor,
    kernel: str,
    noise_level: float,
    stochastic: set[int],
    guidance_scale: Guidance,
) -> tuple[Tensor, Tensor]:
    """`latents [b, T+1, ...]` and `log_probs [b, T]` of one chunk."""
    steps, batch = len(sigmas) - 1, len(noise)
    path = torch.empty_like(noise)
    path[:, 0] = noise[:, 0]
    log_probs = noise.new_zeros(batch, steps)
    for step in range(steps):
        sigma, sigma_next = sigmas[step].expand(batch), sigmas[step + 1].expand(batch)
        velocity = policy.velocity(path[:, step], sigma, prompts, guidance_scale)
        chosen = kernel if step in stochastic else "ode"
        moved = transition(
            chosen,
            velocity,
            path[:, step],
            sigma,
            sigma_next,
            noise_level,
            sigma_max=sigmas[1],
        )
        if step in stochastic:
            path[:, step + 1] = moved.sample(noise[:, step + 1])
            log_probs[:, step] = step_log_prob(kernel, path[:, step + 1], moved)
        else:
            path[:, step + 1] = moved.mean
    return path, log_probs


def step_log_prob(kernel: str, next_latents: Tensor, moved: Transition) -> Tensor:
    """Log-probability `[B]` of the latents a kernel drew; Flow-CPS has its own form."""
    form: LogProbForm = "cps" if kernel == "cps" else "gaussian"
    return log_prob(next_latents, moved.mean, moved.std, form)


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
