"""The optimizer steps on one batch of rollouts: the same for every arm.

Shape letters: P groups, G group size, B = P*G samples, K trained steps of T, N rows of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bpgo.config.settings import CLIP_SHARE, TrainingSettings
from bpgo.core.alike import alike_rows
from bpgo.core.arm import Arm
from bpgo.core.layout import Layout, Pass
from bpgo.core.report import UpdateReport
from bpgo.core.sde import Transition, transition
from bpgo.core.seen import Points, Seen
from bpgo.errors import NonFiniteError, RatioError
from bpgo.interfaces import Guidance, Policy, PromptEmbeddings
from bpgo.records import AdvantageResult, Plan, Rollout, WeightedAdvantage
from bpgo.run.determinism import repeatable
from bpgo.run.ema import EMA
from bpgo.run.processes import Processes
from bpgo.run.sharding import whole

WITHOUT_CLIP = 1e-5  # the tolerance of an arm that has a ratio and no clip range

Velocity = Callable[..., Tensor]


@dataclass
class Updater:
    """What the optimizer steps need beside the batch.

    `others` gives the velocity of further policies by name (`Arm.others`), `averages` those that
    move with each optimizer step. `sharded` says that the transformer's weights are spread over
    the processes (FSDP2): each forward pass then gathers them, so all processes must make equally
    many.
    """

    policy: Policy
    arm: Arm
    optimizer: torch.optim.Optimizer
    parameters: dict[str, Tensor]
    settings: TrainingSettings
    guidance_scale: Guidance
    batch_size: int
    averages: list[EMA] = field(default_factory=list)
    others: Mapping[str, Velocity] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    sharded: bool = False
    guard: Callable[[], AbstractContextManager[None]] = nullcontext  # around each optimizer step

    def layout(self, plan: Plan, group_size: int) -> Layout:
        """How this process's samples share forward passes and optimizer steps."""
        same_rows = self.sharded or self.policy.dtype != torch.float32
        # Samples at several steps would not have a pass of the rollout's size.
        alike = None if same_rows and self.arm.mixes_steps else alike_rows(plan, group_size)
        return Layout(
            len(plan.noise_of) // group_size,
            group_size,
            self.batch_size,
            self.settings.optimizer_steps,
            self.settings.split,
            self.arm.whole_groups,
            same_rows,
            alike,
        )

    @property
    def tolerance(self) -> float:
        """Largest |ratio - 1| before the first optimizer step."""
        clip_range = getattr(self.arm.settings, "clip_range", WITHOUT_CLIP / CLIP_SHARE)
        return self.settings.ratio_tolerance or CLIP_SHARE * clip_range

    def update(
        self,
        rollout: Rollout,
        prompts: PromptEmbeddings,
        advantages: AdvantageResult,
        plan: Plan,
        layout: Layout,
    ) -> UpdateReport:
        """Make the batch's optimizer steps.

        `rollout`, `prompts` and `plan` hold this process's rows of the batch, `advantages` all of
        them. `layout` is the rollout's: with forward passes of its size, the first ratios are
        exactly 1.

        Raises:
            RatioError: if a first ratio is off by more than the tolerance, or the boundary of two
                experts was another in the rollout.
            NonFiniteError: before the optimizer step that would use the value.
        """
        _check_boundary(rollout.boundary, self.policy.boundary)
        report = UpdateReport()
        active, report.groups_dropped = _active_rows(advantages, self.arm.leaves_out_samples)
        if self.arm.settings.kl_weight or not self.arm.idle_without_advantage:
            active, report.groups_dropped = torch.ones_like(active), 0
        if not active.any():
            return report
        own = self.processes.part(len(active))
        own_part = _own_part(advantages, own)
        batch = _Batch(rollout, prompts, plan, layout.group_size, *own_part)
        turns = layout.turns(
            plan.trained, active[own], keep_all=self.sharded, stored=not self.arm.noised_again
        )
        points = [self._points(layout, plan.trained.shape[1], turn) for turn in range(len(turns))]
        # Sharded weights are gathered inside: there a process cannot leave the others alone.
        loop = nullcontext if self.sharded else self.processes.together
        for turn, passes in enumerate(turns):
            if not active.view(self.processes.count, -1)[:, layout.shares()[turn]].any():
                continue  # on no process
            self.optimizer.zero_grad(set_to_none=True)
            first = not report.gradient_norms
            with loop(), self.guard():
                for one in passes:
                    counted = bool(active[own][one.rows].any())
                    self._backward(batch, one, len(one.rows) / points[turn], report, first, counted)
            with self.processes.together():
                self._guard_ratio(report)
            self._step(report)
        report.finish(self.processes, self.policy.device, rollout.log_probs.shape[1])
        return report

    def _points(self, layout: Layout, columns: int, turn: int) -> int:
        """Trained points of one optimizer step, over all processes."""
        rows = len(layout.shares()[turn]) * self.processes.count
        if layout.split == "steps":
            columns = len(torch.arange(columns).tensor_split(layout.optimizer_steps)[turn])
        return rows * columns

    def _backward(
        self,
        batch: _Batch,
        one: Pass,
        share: float,
        report: UpdateReport,
        first: bool,
        counted: bool,
    ) -> None:
        seen = self._see(batch, one, report)
        loss = torch.zeros((), device=seen.velocity.device)
        logged: dict[str, Tensor] = {}
        held: Tensor | None = None
        for number, term in enumerate(batch.terms):
            chosen = _taken(term, seen.points).to(loss.device, loss.dtype)
            step = self.arm.loss(seen, chosen)
            rows = step.rows
            if term.scale is not None:
                rows = rows * term.scale[one.rows].to(rows.device, rows.dtype)
            loss = loss + term.weight * rows.mean()
            if number == 0:
                logged, held = dict(step.scalars), step.held
                if step.clipped is not None:
                    logged["clip_fraction"] = step.clipped.float().mean()
                if first and counted and step.ratio is not None:
                    report.see_first(step, seen)
        logged["loss"] = loss
        if self.arm.settings.kl_weight:
            values = self.arm.regulariser(seen)
            values = values if held is None else values * held
            if batch.gate is not None:  # averaged over the samples that the gate holds
                values = values * batch.gate[one.rows].to(values.device, values.dtype)
            kl = values.mean()
            loss = loss + self.arm.settings.kl_weight * kl
            logged["kl"] = kl
        pull = self.arm.pull(seen)
        if pull is not None:
            loss = loss + pull.mean()
            logged["pull"] = pull.mean()
        # Sharded gradients are averaged over the processes, others are summed.
        share *= self.processes.count if self.sharded else 1
        with repeatable(self.policy.device):
            (loss * share).backward()
        if counted:
            report.add(len(one.rows), **logged)

    def _see(self, batch: _Batch, one: Pass, report: UpdateReport) -> Seen:
        """The trained points of a pass, under the policy as it is and under the further ones."""
        steps = batch.plan.trained[one.rows, one.columns]
        points = Points(one.rows, one.columns, steps, batch.group_size)
        seen = Seen(
            batch.rollout,
            points,
            self._transition,
            self.arm.kernel,
            self.arm.noised_again,
            batch.plan.noise_scale,
        )
        embeddings = batch.prompts.select(one.once(one.rows))
        given = (
            one.once(seen.latents),
            one.once(seen.sigma),
            embeddings.to(self.policy.device, self.policy.dtype),
            self.guidance_scale,
        )
        with torch.no_grad():
            seen.others = {
                name: one.spread(velocity(*given)) for name, velocity in self.others.items()
            }
        seen.velocity = one.spread(self.policy.velocity(*given))
        report.trained_passes += one.count
        report.other_passes += one.count * len(self.others)
        return seen

    def _transition(self, seen: Seen, velocity: Tensor) -> Transition:
        return transition(
            self.arm.kernel,
            velocity,
            seen.latents,
            seen.sigma,
            seen.sigma_next,
            self.arm.noise_level,
            sigma_max=seen.sigma_max,
        )

    def _guard_ratio(self, report: UpdateReport) -> None:
        """Before the first optimizer step: one look at all passes, one wait for the device."""
        deviation = report.look_at_first()
        if deviation is not None and not deviation <= self.tolerance:
            raise RatioError(
                f"before the first optimizer step a ratio differs from 1 by {deviation:.3g}; the"
                f" tolerance (training.ratio_tolerance) is {self.tolerance:.3g}."
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
        for average in self.averages:
            average.update()


@dataclass(frozen=True)
class _Batch:
    """This process's rows of everything an update reads; terms and gate with rows `[B, ...]`."""

    rollout: Rollout
    prompts: PromptEmbeddings
    plan: Plan
    group_size: int
    terms: list[WeightedAdvantage]
    gate: Tensor | None


def _own_part(
    advantages: AdvantageResult, own: slice
) -> tuple[list[WeightedAdvantage], Tensor | None]:
    """The terms of some rows, and how much the regulariser of each counts (1 on average)."""
    terms = [
        WeightedAdvantage(
            term.weight,
            term.advantage.flatten(0, 1)[own],
            term.over,
            None if term.scale is None else term.scale.flatten(0, 1)[own],
        )
        for term in advantages.terms
    ]
    gate = None
    if advantages.gate is not None:
        held = advantages.gate.flatten().double()
        gate = (held / held.mean().clamp(min=1 / len(held)))[own]
    return terms, gate


def _taken(term: WeightedAdvantage, points: Points) -> Tensor:
    """A term's advantages at trained points: `[N]`, or `[N, *sites]`."""
    if term.over == "step":
        return term.advantage[points.rows, points.steps]
    return term.advantage[points.rows]


def _check_boundary(drawn: float | None, now: float | None) -> None:
    """Two experts hand over at the same noise level, or a ratio would compare two policies."""
    if drawn != now:
        raise RatioError(
            f"the boundary between the two experts was {drawn} in the rollout and is {now} in the"
            " update: no optimizer step was made. One policy must do both (model.boundary)"
        )


def _active_rows(advantages: AdvantageResult, by_sample: bool) -> tuple[Tensor, int]:
    """Samples `[B]` of groups with any advantage, and the number of groups without.

    With `by_sample` the samples that have one themselves. Where all advantages are zero nothing
    moves, so forward passes are saved. The loss still divides by all B samples: the others weigh as
    they would.
    """
    values = [term.advantage.view(*term.advantage.shape[:2], -1) for term in advantages.terms]
    samples = torch.stack([each.ne(0).any(dim=2) for each in values]).any(dim=0).cpu()
    groups = samples.any(dim=1)
    held = samples if by_sample else groups[:, None].expand_as(samples)
    return held.flatten(), int((~groups).sum())
