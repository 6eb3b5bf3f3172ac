"""The optimizer steps on one batch of rollouts: the same for every arm.

Shape letters: P groups, G group size, B = P*G samples, K trained steps of T, b rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bpgo.config.settings import TrainingSettings
from bpgo.core import loss as losses
from bpgo.core.arm import Arm
from bpgo.core.rollout import chunks, step_log_prob
from bpgo.core.sde import Transition, transition
from bpgo.errors import NonFiniteError, RatioError
from bpgo.interfaces import Guidance, Policy, PromptEmbeddings
from bpgo.records import AdvantageResult, Rollout
from bpgo.run.determinism import repeatable
from bpgo.run.ema import EMA
from bpgo.run.processes import Processes
from bpgo.run.sharding import whole


@dataclass
class UpdateReport:
    """Means over a batch's chunks, kept on the device until the end of the update."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    weight: float = 0.0
    gradient_norms: list[float] = field(default_factory=list)
    deviations: list[Tensor] = field(default_factory=list)  # a chunk's largest |ratio - 1|
    ratio_deviation: float = 0.0  # the largest of them, before the first optimizer step
    groups_dropped: int = 0

    def add(self, rows: int, **values: Tensor) -> None:
        """Count one chunk of `rows` samples."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach() * rows
        self.weight += rows

    def sum_over(self, processes: Processes, names: tuple[str, ...], device: torch.device) -> None:
        """Join the chunks of all processes; `names` are what some of them may have counted."""
        if processes.count == 1:
            return
        values = [float(self.sums.get(name, 0.0)) for name in names]
        joined = processes.sum(
            torch.tensor([*values, self.weight], dtype=torch.float64, device=device)
        )
        self.weight = float(joined[-1])
        self.sums = dict(zip(names, joined, strict=False)) if self.weight else {}

    def means(self) -> dict[str, float]:
        """One number per quantity, as the metrics file has them."""
        values = {name: float(value) / max(self.weight, 1.0) for name, value in self.sums.items()}
        norms = self.gradient_norms or [0.0]
        return {
            **dict.fromkeys(("loss", "clip_fraction"), 0.0),  # where every group was dropped
            **values,
            "gradient_norm": float(np.mean(norms)),
            "ratio_deviation": self.ratio_deviation,
            "groups_dropped": self.groups_dropped,
        }


@dataclass
class Updater:
    """What the optimizer steps need beside the batch.

    `reference_velocity` gives the frozen base policy's velocity; needed only where the arm has a
    KL term. `sharded` says that the transformer's weights are spread over the processes (FSDP2):
    each forward pass then gathers them, so all processes must make equally many.
    """

    policy: Policy
    arm: Arm
    optimizer: torch.optim.Optimizer
    parameters: dict[str, Tensor]
    settings: TrainingSettings
    guidance_scale: Guidance
    batch_size: int
    ema: EMA | None = None
    reference_velocity: Callable[..., Tensor] | None = None
    processes: Processes = field(default_factory=Processes)
    sharded: bool = False
    guard: Callable[[], AbstractContextManager[None]] = nullcontext  # around each optimizer step

    def update(
        self,
        rollout: Rollout,
        prompts: PromptEmbeddings,
        advantages: AdvantageResult,
        trained_steps: Tensor,
    ) -> UpdateReport:
        """Make the batch's optimizer steps.

        `rollout` and `prompts` hold this process's rows of the batch, `advantages` and
        `trained_steps` `[B, K]` all of them. `trained_steps` names the stored steps of each
        sample. Column by column, all samples go through one forward pass in the rollout's own
        chunks, so that the first ratios are exactly 1; the K columns are shared out among
        `optimizer_steps` optimizer steps.

        Raises:
            RatioError: if a first ratio is off by more than `ratio_tolerance`, or the boundary of
                two experts was another in the rollout.
            NonFiniteError: before the optimizer step that would use the value.
        """
        _check_boundary(rollout.boundary, self.policy.boundary)
        report = UpdateReport()
        own = self.processes.part(len(trained_steps))
        terms = [(term.weight, term.advantage.flatten()[own]) for term in advantages.terms]
        active, report.groups_dropped = _active_rows(advantages)
        if self.reference_velocity is not None:  # a KL term moves every sample
            active, report.groups_dropped = torch.ones_like(active), 0
        if not active.any():
            return report
        columns = np.array_split(np.arange(trained_steps.shape[1]), self.settings.optimizer_steps)
        # Sharded weights are gathered inside: there a process cannot leave the others alone.
        loop = nullcontext if self.sharded else self.processes.together
        for turn, chosen in enumerate(columns):
            self.optimizer.zero_grad(set_to_none=True)
            with loop(), self.guard():
                for column in chosen:
                    for rows in chunks(own.stop - own.start, self.batch_size):
                        picked = torch.arange(rows.start, rows.stop)
                        kept = active[own][rows]
                        batch = self._chunk(rollout, picked, kept, trained_steps[own][:, column])
                        if batch is not None:
                            share = len(batch.rows) / (len(trained_steps) * len(chosen))
                            self._backward(batch, prompts, terms, share, report, first=turn == 0)
            with self.processes.together():
                self._guard_ratio(report)
            self._step(report)
        names = ("loss", "clip_fraction", *(["kl"] if self.reference_velocity else []))
        report.sum_over(self.processes, names, self.policy.device)
        report.ratio_deviation = self.processes.largest(report.ratio_deviation)
        return report

    def _chunk(
        self, rollout: Rollout, rows: Tensor, active: Tensor, steps: Tensor
    ) -> _Chunk | None:
        """The active ones of some rows; `steps` `[b]` of all rows of this process."""
        picked = rows[active]
        if len(picked) == 0:
            if not self.sharded:
                return None
            picked = rows[:1]  # its advantage is 0: no gradient, but the forward pass is made
        return _Chunk(rollout, picked, steps[picked], counted=bool(active.any()))

    def _backward(
        self,
        batch: _Chunk,
        prompts: PromptEmbeddings,
        terms: list[tuple[float, Tensor]],
        share: float,
        report: UpdateReport,
        first: bool,
    ) -> None:
        embeddings = prompts.select(batch.rows).to(self.policy.device, self.policy.dtype)
        velocity = self.policy.velocity(batch.latents, batch.sigma, embeddings, self.guidance_scale)
        moved = self._transition(batch, velocity)
        log_prob = step_log_prob(self.arm.settings.kernel, batch.next_latents, moved)
        ratio = losses.ratio(log_prob, batch.log_probs)
        if first and batch.counted:
            report.deviations.append((ratio.detach() - 1).abs().max())
        loss = torch.zeros((), device=ratio.device)
        for weight, advantage in terms:
            chosen = advantage[batch.rows].to(ratio.device, ratio.dtype)
            loss = loss + weight * self.arm.surrogate(ratio, chosen).mean()
        clipped = losses.clip_fraction(ratio.detach(), self.arm.settings.clip_range)
        logged = {"loss": loss, "clip_fraction": clipped}
        if self.reference_velocity is not None:
            kl = self._kl(batch, embeddings, moved)
            loss = loss + self.arm.settings.kl_weight * kl
            logged["kl"] = kl
        # Sharded gradients are averaged over the processes, others are summed.
        share *= self.processes.count if self.sharded else 1
        with repeatable(self.policy.device):
            (loss * share).backward()
        if batch.counted:
            report.add(len(batch.rows), **logged)

    def _transition(self, batch: _Chunk, velocity: Tensor) -> Transition:
        arm = self.arm.settings
        return transition(
            arm.kernel,
            velocity,
            batch.latents,
            batch.sigma,
            batch.sigma_next,
            arm.noise_level,
            sigma_max=batch.sigma_max,
        )

    def _kl(self, batch: _Chunk, embeddings: PromptEmbeddings, moved: Transition) -> Tensor:
        assert self.reference_velocity is not None
        with torch.no_grad():
            reference_velocity = self.reference_velocity(
                batch.latents, batch.sigma, embeddings, self.guidance_scale
            )
            reference = self._transition(batch, reference_velocity)
        form = self.arm.settings.kl_form
        return losses.kl(form, moved, reference.mean).mean()

    def _guard_ratio(self, report: UpdateReport) -> None:
        """Before the first optimizer step: one look at all chunks, one wait for the device."""
        if not report.deviations:
            return
        deviation = report.ratio_deviation = float(torch.stack(report.deviations).max())
        report.deviations.clear()
        if not deviation <= self.settings.ratio_tolerance:
            raise RatioError(
                f"before the first optimizer step a ratio differs from 1 by {deviation:.3g}; the"
                f" tolerance (training.ratio_tolerance) is {self.settings.ratio_tolerance:.3g}."
                " The update does not see the policy that drew the samples. Usual causes: another"
                " guidance scale or noise level, latents stored in a smaller dtype, another batch"
                " size, EMA weights swapped in, another scheduler index."
            )

    def _step(self, report: UpdateReport) -> None:
        if not self.sharded:
            self.processes.sum_gradients(self.parameters.values())
        gradients = [p for p in self.parameters.values() if p.grad is not None]
        if not gradients:
            return
        norms = torch.nn.utils.clip_grad_norm_(gradients, self.settings.gradient_clip)
        norm = float(whole(norms))
        with self.processes.together():
            if not np.isfinite(norm):
                raise NonFiniteError(f"the gradient's norm is {norm}: no optimizer step was made")
        report.gradient_norms.append(norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()


class _Chunk:
    """The stored transitions of some rows, each at its own step."""

    def __init__(self, rollout: Rollout, rows: Tensor, steps: Tensor, counted: bool = True) -> None:
        self.rows, self.counted = rows, counted
        self.latents = rollout.latents[rows, steps]
        self.next_latents = rollout.latents[rows, steps + 1]
        self.log_probs = rollout.log_probs[rows, steps]
        self.sigma = rollout.sigmas[steps]
        self.sigma_next = rollout.sigmas[steps + 1]
        self.sigma_max = rollout.sigmas[1]


def _check_boundary(drawn: float | None, now: float | None) -> None:
    """Two experts hand over at the same noise level, or a ratio would compare two policies."""
    if drawn != now:
        raise RatioError(
            f"the boundary between the two experts was {drawn} in the rollout and is {now} in the"
            " update: no optimizer step was made. One policy must do both (model.boundary)"
        )


def _active_rows(advantages: AdvantageResult) -> tuple[Tensor, int]:
    """Samples `[B]` of groups with any advantage, and the number of groups without.

    A group whose advantages are all zero moves nothing, so its forward passes are saved. The loss
    still divides by all B samples: the other groups weigh as they would.
    """
    stacked = torch.stack([term.advantage for term in advantages.terms])
    groups = stacked.ne(0).any(dim=2).any(dim=0).cpu()
    return groups.repeat_interleave(stacked.shape[2]), int((~groups).sum())
