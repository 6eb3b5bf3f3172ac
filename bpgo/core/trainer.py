"""One training run: rollout, reward, advantage, update; checkpointed, resumed to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpgo import seeding
from bpgo.config.settings import Settings
from bpgo.core.arm import BASE, Arm, idle_settings
from bpgo.core.averages import JUDGED, averages_of, velocity_of
from bpgo.core.layout import Layout
from bpgo.core.report import UpdateReport
from bpgo.core.rollout import fresh_noise, prompts_of, rollout, rollout_noise
from bpgo.core.run_state import RunState
from bpgo.core.scoring import PART, Scored, group_rewards, score_batch
from bpgo.core.update import Updater
from bpgo.errors import NonFiniteError, RunInterruptedError
from bpgo.interfaces import OF_PROMPTS, Policy, PromptEmbeddings, Reward
from bpgo.records import AdvantageResult, Calibration, Plan, PromptBatch, Rollout
from bpgo.run import memory
from bpgo.run.folder import RowLog, RunLogs, lock, logged_iterations, on_stop_signals
from bpgo.run.optimizer import make_optimizer
from bpgo.run.processes import Processes, check_parts
from bpgo.run.sharding import ShardedModel, local_size
from bpgo.run.shown import ShownSamples
from bpgo.storage.files import atomic_directory


class Trainer:
    """Trains one policy with one arm.

    Args:
        settings: the resolved configuration as the arm is trained with it (`Settings.of_arm`).
        policy: the base policy, not yet trained.
        arm: what differs between algorithms.
        reward: drives training. Of a sum its parts are logged beside the diagnostics.
        diagnostics: further rewards by name, scored on the rollouts for the analysis. No arm and
            no update sees them.
        prompts: the training prompts; `embeddings` are theirs, in the same order.
        calibration: the training reward under the base policy.
        seed: names every draw, so arms of one seed see the same prompts and noise.
        output: the run's folder.
        config_digest: `Settings.run_digest`; a checkpoint with another one is refused.
        processes: this process's place among those that train the run; all arguments are equal
            on each. Full weights are sharded over several (`machine.shard_weights`).
    """

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        arm: Arm,
        reward: Reward,
        diagnostics: dict[str, Reward],
        prompts: PromptBatch,
        embeddings: PromptEmbeddings,
        calibration: Calibration,
        seed: int,
        output: Path,
        config_digest: str,
        title: str = "train",
        processes: Processes | None = None,
    ) -> None:
        self.settings, self.policy, self.arm, self.title = settings, policy, arm, title
        self.reward, self.diagnostics, self.calibration = reward, diagnostics, calibration
        self.prompts, self.embeddings, self.seed = prompts, embeddings, seed
        self.output, self.config_digest = Path(output), config_digest
        self.processes = processes or Processes()
        check_parts(settings.rollout.prompts_per_iteration, self.processes)
        training = settings.training
        reference = policy.reference_velocity() if BASE in arm.others() else None
        self.sharded: ShardedModel | None = None
        if self.processes.count > 1 and settings.sharded:
            self.sharded = ShardedModel(policy, reference)
        self.parameters = policy.trainable()
        self.optimizer = make_optimizer(self.parameters.values(), training)
        self.averages = averages_of(arm, self.parameters, training, policy.device)
        self.state = RunState(self.parameters, self.optimizer, self.averages, arm, self.processes)
        self.sigmas = policy.sigmas(settings.rollout.steps).to(policy.device)
        steps = settings.rollout
        others = {
            name: velocity_of(policy, average)
            for name, average in self.averages.items()
            if name in arm.others()
        }
        if reference is not None:
            others[BASE] = reference
        self.updater = Updater(
            policy,
            arm,
            self.optimizer,
            self.parameters,
            training,
            steps.guidance_scale,
            0 if steps.batch_size == "auto" else steps.batch_size,
            [average for average in self.averages.values() if average.by_step],
            others,
            self.processes,
            self.sharded is not None,
        )
        self.wall_seconds = 0.0
        self.shown: ShownSamples | None = None  # of the iteration, where some are looked at
        self.clock: Callable[[], float] = self._wall_clock  # the benchmark sets another
        self._stop_requested = False

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the last iteration.

        Raises:
            RunInterruptedError: after a signal to stop (`bpgo.run.folder`), with the state saved.
            NonFiniteError: for a reward, loss or gradient that is not a number.
            UserError: if another process trains this run, or its state has another configuration.
        """
        with ExitStack() as held:
            with self.processes.together():
                self.output.mkdir(parents=True, exist_ok=True)
                if self.processes.main:
                    held.enter_context(lock(self.output))
            held.enter_context(on_stop_signals(self._ask_to_stop))
            with self.processes.together():
                done, notes = self._resume()
            training = self.settings.training
            notes += [*self.choose_batch_size(), *idle_settings(self.arm, training.optimizer_steps)]
            total = training.iterations
            logs = None
            with self.processes.together():
                if self.processes.main:
                    logs = held.enter_context(RunLogs(self.output, self.title, total, done, notes))
            for iteration in range(done + 1, total + 1):
                with self.state.tried(self.output / "state", iteration):
                    entry = self.iterate(iteration, logs.rows if logs else None)
                with self.processes.together():
                    if logs:
                        logs.write(entry, self.shown)
                self._keep(iteration, logs)

    def iterate(self, iteration: int, rows: RowLog | None = None) -> dict[str, Any]:
        """One iteration, numbered from 1: what `metrics.jsonl` says of it; nothing is saved."""
        processes = self.processes
        self.choose_batch_size()
        start = self.clock()
        size = self.settings.rollout.prompts_per_iteration
        chosen = prompts_of(self.prompts, size, self.seed, iteration)
        own = chosen[processes.part(len(chosen))]
        prompts = self._embeddings_of(own)
        whole = self.plan(iteration)
        plan = whole.part(processes.part(len(whole.trained)))
        layout = self.updater.layout(plan, self.settings.rollout.group_size)
        # Sharded weights are gathered inside: there a process cannot leave the others alone.
        alone = nullcontext() if self.sharded else processes.together()
        with alone, self._memory(f"rollout of iteration {iteration}", gradient=False):
            batch = self._rollout(iteration, own, prompts, plan, layout)
        rolled = self.clock()
        with processes.together(), memory.reward_explained(f"iteration {iteration}"):
            scored_here = self._score(iteration, batch, own)
        scored_all = scored_here.gathered(processes)
        scored = self.clock()
        with processes.together():
            result = self.arm.advantages(
                group_rewards(
                    chosen,
                    scored_all,
                    whole,
                    self.reward,
                    self.calibration,
                    self.arm.settings.trust,
                    self.sigmas,
                    tuple(batch.log_probs.shape[2:]) if self.arm.per_site else None,
                ),
                seeding.generator(self.seed, "arm", iteration),
            )
            _check_finite(result, iteration)
        update = f"update of iteration {iteration}"
        self.updater.guard = lambda: self._memory(update, gradient=True)
        report = self.updater.update(batch, prompts, result, plan, layout)
        for average in self.averages.values():
            if not average.by_step:
                average.update(len(report.gradient_norms))
        end = self.clock()
        self.wall_seconds += end - start
        with processes.together():
            if rows is not None:
                rows.write(iteration, chosen, scored_all.rewards, scored_all.diagnostics, result)
        times = {
            "seconds": end - start,
            "rollout_seconds": rolled - start,
            "reward_seconds": scored - rolled,
            "update_seconds": end - scored,
        }
        means = {f"{PART}{name}": float(part.mean()) for name, part in scored_all.parts.items()}
        summary = _summary(scored_all.rewards, report, result)
        drawn = torch.tensor(batch.passes, device=self.policy.device)
        summary["rollout_passes"] = int(processes.sum(drawn))
        return {"iteration": iteration, **summary, **means, **times}

    def plan(self, iteration: int) -> Plan:
        """The arm's plan of all samples of an iteration."""
        draws = seeding.generator(self.seed, "trained_steps", iteration)
        return self.arm.plan(self.settings.rollout, iteration, draws)

    def choose_batch_size(self) -> list[str]:
        """Measure `rollout.batch_size: auto`, once: a line that says what was found."""
        if self.updater.batch_size:
            return []
        size = memory.fitting_batch_size(
            self._trial(gradient=True),
            self._rows,
            self._reserve(),
            self.processes,
            self.sharded is not None,
        )
        self.updater.batch_size = size
        return [
            f"rollout.batch_size auto: {min(size, self._rows)} of {self._rows} samples at a time"
        ]

    @property
    def _rows(self) -> int:
        """This process's samples of an iteration."""
        sizes = self.settings.rollout
        return sizes.prompts_per_iteration * sizes.group_size // self.processes.count

    def _reserve(self) -> int:
        """Bytes that an iteration needs beside a forward and backward pass.

        The optimizer's two moments, where it has none yet, and noise, path and text of all samples.
        """
        moments = (
            0 if self.optimizer.state else 8 * sum(local_size(p) for p in self.parameters.values())
        )
        latents = math.prod(self.policy.latent_shape)
        path = 2 * 4 * (self.settings.rollout.steps + 1) * latents
        one = self.embeddings.select(slice(0, 1))
        text = sum(value.nbytes for name in OF_PROMPTS if (value := getattr(one, name)) is not None)
        return moments + self._rows * (path + text)

    def _trial(self, gradient: bool) -> memory.Trial:
        scale = self.settings.rollout.guidance_scale
        return memory.Trial(self.policy, self.embeddings, scale, gradient)

    def _memory(self, what: str, gradient: bool) -> AbstractContextManager[None]:
        """A full memory is told in one message, with what would fit."""
        size, measure = self.updater.batch_size, self.sharded is None
        return memory.explained(what, size, self._trial(gradient), self._rows, measure)

    def _embeddings_of(self, chosen: PromptBatch) -> PromptEmbeddings:
        """`[B, ...]` on the policy's device: each prompt's embedding, once per sample.

        All prompts' embeddings may be too large for the device (FLUX: 4 MB each); they stay where
        they were loaded, and only the chosen ones move.
        """
        index = {prompt: row for row, prompt in enumerate(self.prompts.ids)}
        found = self.embeddings.select(torch.tensor([index[prompt] for prompt in chosen.ids]))
        moved = found.to(self.policy.device, self.policy.dtype)
        rows = torch.arange(len(chosen))
        return moved.select(rows.repeat_interleave(self.settings.rollout.group_size))

    def _rollout(
        self,
        iteration: int,
        chosen: PromptBatch,
        prompts: PromptEmbeddings,
        plan: Plan,
        layout: Layout,
    ) -> Rollout:
        sizes, arm = self.settings.rollout, self.arm
        shape = self.policy.latent_shape
        names = (self.seed, iteration, chosen.ids)
        noise = rollout_noise(shape, sizes.steps, *names, plan.noise_of)
        with self._drawing():
            drawn = rollout(
                self.policy,
                prompts,
                noise,
                self.sigmas,
                arm.kernel,
                arm.noise_level,
                plan,
                layout,
                sizes.guidance_scale,
                self.policy.channel_dimension if arm.per_site else None,
            )
        if not arm.noised_again:
            return drawn
        own = torch.arange(sizes.group_size).repeat(len(chosen))[:, None].expand_as(plan.trained)
        fresh = fresh_noise(shape, *names, own if plan.fresh_of is None else plan.fresh_of)
        return replace(drawn, fresh=fresh)

    def _drawing(self) -> AbstractContextManager[None]:
        """Inside, the weights are those of the policy that draws the samples."""
        name = self.arm.draws_with
        return nullcontext() if name is None else self.averages[name].swapped()

    def _score(self, iteration: int, batch: Rollout, chosen: PromptBatch) -> Scored:
        looked_at = self.processes.main and iteration in (1, *self.settings.training.stages())
        group = self.settings.rollout.group_size
        self.shown = ShownSamples(chosen.texts, group) if looked_at else None

        def decode(latents: Tensor) -> Tensor:
            with self._memory(f"decoding in iteration {iteration}", gradient=False):
                pixels = self.policy.decode(latents)
            if self.shown is not None:
                self.shown.see(pixels)
            return pixels

        try:
            found = score_batch(
                batch.latents[:, -1],
                chosen,
                self.reward,
                self.diagnostics,
                self.policy,
                decode,
                self.arm.observe,
            )
        except NonFiniteError as error:
            raise NonFiniteError(f"iteration {iteration}: {error}") from None
        if self.arm.per_site:
            return found
        return replace(found, log_probs=batch.log_probs.unflatten(0, (len(chosen), -1)))

    def _keep(self, iteration: int, logs: RunLogs | None) -> None:
        """Snapshots for the curves, checkpoints for resuming; stop here if asked to."""
        training = self.settings.training
        last = iteration == training.iterations
        stop = self.processes.largest(self._stop_requested) > 0
        if iteration % training.snapshot_every == 0 and not last:
            self.save_policy(self.output / "snapshots" / f"iteration_{iteration:06d}")
        if last or stop or iteration % training.checkpoint_every == 0:
            with self.processes.together():
                if logs:
                    logs.sync()
            extra = {"wall_seconds": self.wall_seconds, "batch_size": self.updater.batch_size}
            self.state.save(self.output / "state", iteration, self.config_digest, extra)
        if stop and not last:
            with self.processes.together():
                raise RunInterruptedError(
                    f"stopped after iteration {iteration} of {training.iterations}; the state is"
                    " saved, the same command goes on from here"
                )

    def save_policy(self, folder: Path) -> None:
        """Write the policy as it is judged: the EMA weights where there is an EMA.

        All processes call it, the main one writes.
        """
        main = self.processes.main
        complete = self.sharded.whole(main) if self.sharded else nullcontext()
        with self.as_judged(), complete, self.processes.together():
            if main:
                with atomic_directory(folder) as part:
                    self.policy.save(part)

    def as_judged(self) -> AbstractContextManager[None]:
        """Inside, the weights are those that are saved and judged."""
        return self.averages[JUDGED].swapped() if JUDGED in self.averages else nullcontext()

    def _resume(self) -> tuple[int, list[str]]:
        done, extra, notes = self.state.restore(
            self.output / "state", self.config_digest, logged_iterations(self.output)
        )
        self.wall_seconds = extra.get("wall_seconds", 0.0)
        if self.settings.rollout.batch_size == "auto":  # a resumed run goes on with the same
            self.updater.batch_size = extra.get("batch_size", 0)
        return done, notes

    def _ask_to_stop(self) -> None:
        """At the end of the iteration."""
        self._stop_requested = True

    def _wall_clock(self) -> float:
        if self.policy.device.type == "cuda":
            torch.cuda.synchronize(self.policy.device)
        return time.perf_counter()


def _summary(rewards: Tensor, report: UpdateReport, result: AdvantageResult) -> dict[str, float]:
    return {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "group_std": float(rewards.std(dim=1).mean()),
        **report.means(),
        **result.scalars,
    }


def _check_finite(result: AdvantageResult, iteration: int) -> None:
    for term in result.terms:
        if not bool(torch.isfinite(term.advantage).all()):
            raise NonFiniteError(f"iteration {iteration}: an advantage is not a finite number")
