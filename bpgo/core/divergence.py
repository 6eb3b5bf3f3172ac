"""How far a policy's sampling path has moved from the base policy's: KL along its own path.

A stochastic step of either policy is a Gaussian of the same standard deviation k, so their KL
divergence is |mean - mean_base|^2 / (2 k^2), and that of the whole path is the sum over the
stochastic steps, in expectation over the policy's own trajectories (Fan et al. 2023, DPOK; per step
Flow-GRPO's KL term). It is given per latent number, as log-probabilities are here: times their
count it is in nats. Steps without noise have no density, and do not count.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bpgo.core.rollout import chunks
from bpgo.core.sde import transition
from bpgo.interfaces import Guidance, Policy, PromptEmbeddings


@torch.no_grad()
def path_kl(
    policy: Policy,
    base: Callable[..., Tensor],
    prompts: PromptEmbeddings,
    noise: Tensor,
    sigmas: Tensor,
    kernel: str,
    noise_level: float,
    guidance_scale: Guidance = 1.0,
    batch_size: int = 96,
) -> Tensor:
    """The divergence `[B]` of B trajectories of `policy`, float64, on the host.

    Args:
        policy: draws the trajectories.
        base: the base policy's velocity (`Policy.reference_velocity`).
        prompts: embeddings of the B samples.
        noise: `[B, K+1, ...]`, the start and each of the K stochastic steps' noise.
        sigmas: `[T+1]`, falling; the first K steps are stochastic, the others are not taken.
        kernel: of the stochastic steps; not `ode`.
        noise_level: the kernel's eta.
        guidance_scale: of both policies.
        batch_size: samples in a forward pass.
    """
    sigmas, found = sigmas.to(policy.device), []
    for rows in chunks(len(noise), batch_size):
        latents = noise[rows, 0].to(policy.device)
        embeddings = prompts.select(rows).to(policy.device, policy.dtype)
        total = torch.zeros(len(latents), dtype=torch.float64)
        for step in range(noise.shape[1] - 1):
            now, following = (sigmas[k].expand(len(latents)) for k in (step, step + 1))
            given = (latents, now, embeddings, guidance_scale)
            velocity = policy.velocity(*given)
            moved = transition(
                kernel, velocity, latents, now, following, noise_level, sigma_max=sigmas[1]
            )
            shift = moved.velocity_scale * (velocity - base(*given)) / moved.std
            total += shift.flatten(1).square().mean(dim=1).double().cpu() / 2
            latents = moved.sample(noise[rows, step + 1].to(policy.device))
        found.append(total)
    return torch.cat(found)
