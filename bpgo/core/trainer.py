"""One training run: rollout, reward, advantage, update; checkpointed, resumed to the bit."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from bpgo import seeding
from bpgo.core import checkpoint as checkpoints
from bpgo.core.arm import Arm
from bpgo.core.ema import EMA
from bpgo.core.interfaces import Policy, PromptEmbeddings, Reward
from bpgo.core.optimizer import AdamW
from bpgo.core.progress import MetricsLog, Progress, reopen
from bpgo.core.rollout import rollout, rollout_noise
from bpgo.core.update import Updater, UpdateReport
from bpgo.errors import NonFiniteError, RunInterruptedError, UserError
from bpgo.files import atomic_directory
from bpgo.records import AdvantageResult, Calibration, GroupRewards, PromptBatch, Rollout
from bpgo.settings import Settings


class Trainer:
    """Trains one policy with one arm.

    Args:
        settings: the resolved configuration; `rollout` and `training` are equal for all arms.
        policy: the base policy, not yet trained.
        arm: what differs between algorithms.
        reward: drives training.
        diagnostics: further rewards by name, scored on the rollouts for the analysis. No arm and
            no update sees them.
        prompts: the training prompts; `embeddings` are theirs, in the same order.
        calibration: the training reward under the base policy.
        seed: names every draw, so arms of one seed see the same prompts and noise.
        output: the run's folder.
        config_digest: `Settings.run_digest`; a checkpoint with another one is refused.
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
    ) -> None:
        self.settings, self.policy, self.arm, self.title = settings, policy, arm, title
        self.reward, self.diagnostics, self.calibration = reward, diagnostics, calibration
        self.prompts, self.embeddings, self.seed = prompts, embeddings, seed
        self.output, self.config_digest = Path(output), config_digest
        self.parameters = policy.trainable()
        training = settings.training
        self.optimizer = AdamW(
            list(self.parameters.values()),
            lr=training.learning_rate,
            betas=(training.betas[0], training.betas[1]),
            eps=training.epsilon,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self.ema: EMA | None = None
        if training.ema_decay > 0:
            self.ema = EMA(self.parameters, decay=training.ema_decay, every=training.ema_every)
        self.sigmas = policy.sigmas(settings.rollout.steps).to(policy.device)
        steps = settings.rollout
        self.stochastic_steps = list(range(steps.steps - steps.deterministic_tail))
        self.updater = Updater(
            policy,
            arm,
            self.optimizer,
            self.parameters,
            training,
            steps.guidance_scale,
            steps.batch_size,
            self.ema,
            policy.reference_velocity() if arm.settings.kl_weight else None,
        )
        self.wall_seconds = 0.0
        self.clock: Callable[[], float] = self._wall_clock  # the benchmark sets another
        self._stop_requested = False

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the last iteration.

        Raises:
            RunInterruptedError: after SIGTERM or SIGUSR1, with the state saved.
            NonFiniteError: for a reward, loss or gradient that is not a number.
            UserError: if another process trains this run, or its state has another configuration.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        with _lock(self.output), self._signals():
            done, notes = self._resume()
            total = self.settings.training.iterations
            metrics = MetricsLog(self.output, done)
            rows = _RowLog(self.output / "rollouts.jsonl", done)
            try:
                with Progress(self.title, total, done) as progress:
                    for note in notes:
                        progress.say(note)
                    for iteration in range(done + 1, total + 1):
                        entry = self.iterate(iteration, rows)
                        metrics.write(entry)
                        progress.step(iteration, f"reward {entry['reward_mean']:.3f}")
                        self._keep(iteration)
            finally:
                metrics.close()
                rows.close()

    def iterate(self, iteration: int, rows: _RowLog | None = None) -> dict[str, Any]:
        """One iteration, numbered from 1: what `metrics.jsonl` says of it; nothing is saved."""
        start = self.clock()
        chosen = self._prompts_of(iteration)
        batch = self._rollout(iteration, chosen)
        rolled = self.clock()
        rewards, diagnostics = self._score(iteration, batch, chosen)
        scored = self.clock()
        result = self.arm.advantages(
            GroupRewards(rewards, chosen.ids, self.calibration),
            seeding.generator(self.seed, "arm", iteration),
        )
        _check_finite(result, iteration)
        prompts = self._embeddings_of(chosen)
        steps = self.arm.trained_steps(
            self.stochastic_steps,
            rewards.numel(),
            seeding.generator(self.seed, "trained_steps", iteration),
        )
        report = self.updater.update(batch, prompts, result, steps)
        end = self.clock()
        self.wall_seconds += end - start
        if rows is not None:
            rows.write(iteration, chosen, rewards, diagnostics, result)
        times = {
            "seconds": end - start,
            "rollout_seconds": rolled - start,
            "reward_seconds": scored - rolled,
            "update_seconds": end - scored,
        }
        return {"iteration": iteration, **_summary(rewards, report, result), **times}

    def _prompts_of(self, iteration: int) -> PromptBatch:
        """The iteration's P prompts: each epoch is a permutation, incomplete batches left out."""
        size = self.settings.rollout.prompts_per_iteration
        epoch, place = divmod(iteration - 1, len(self.prompts) // size)
        order = seeding.numpy_generator(self.seed, "prompts", epoch).permutation(len(self.prompts))
        return self.prompts[order[place * size : (place + 1) * size].tolist()]

    def _embeddings_of(self, chosen: PromptBatch) -> PromptEmbeddings:
        """`[B, ...]`: each prompt's embedding, once per sample."""
        index = {prompt: row for row, prompt in enumerate(self.prompts.ids)}
        rows = torch.tensor([index[prompt] for prompt in chosen.ids])
        return self.embeddings.select(rows.repeat_interleave(self.settings.rollout.group_size))

    def _rollout(self, iteration: int, chosen: PromptBatch) -> Rollout:
        sizes, arm = self.settings.rollout, self.arm.settings
        noise = rollout_noise(
            self.policy.latent_shape,
            sizes.steps,
            self.seed,
            iteration,
            chosen.ids,
            sizes.group_size,
            arm.shared_initial_noise,
        )
        return rollout(
            self.policy,
            self._embeddings_of(chosen),
            noise,
            self.sigmas,
            arm.kernel,
            arm.noise_level,
            self.stochastic_steps,
            sizes.guidance_scale,
            sizes.batch_size,
        )

    def _score(
        self, iteration: int, batch: Rollout, chosen: PromptBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        group = self.settings.rollout.group_size
        texts = [text for text in chosen.texts for _ in range(group)]
        with torch.no_grad():
            rewards = self.reward(batch.images, texts).float().view(len(chosen), group)
            extra = {
                name: reward(batch.images, texts).float().view(len(chosen), group)
                for name, reward in self.diagnostics.items()
            }
        bad = (~torch.isfinite(rewards)).nonzero()
        if len(bad):
            row, sample = bad[0].tolist()
            raise NonFiniteError(
                f"iteration {iteration}: the training reward of prompt '{chosen.ids[row]}'"
                f" ({chosen.texts[row]!r}), sample {sample}, is {float(rewards[row, sample])}"
            )
        return rewards, extra

    def _keep(self, iteration: int) -> None:
        """Snapshots for the curves, checkpoints for resuming; stop here if asked to."""
        training = self.settings.training
        last = iteration == training.iterations
        if iteration % training.snapshot_every == 0 and not last:
            self.save_policy(self.output / "snapshots" / f"iteration_{iteration:06d}")
        if last or self._stop_requested or iteration % training.checkpoint_every == 0:
            self._checkpoint(iteration)
        if self._stop_requested and not last:
            raise RunInterruptedError(
                f"stopped after iteration {iteration} of {training.iterations}; the state is saved,"
                " the same command goes on from here"
            )

    def save_policy(self, folder: Path) -> None:
        """Write the policy as it is judged: the EMA weights where there is an EMA."""
        judged = self.ema.swapped() if self.ema else nullcontext()
        with judged, atomic_directory(folder) as part:
            self.policy.save(part)

    def _checkpoint(self, iteration: int) -> None:
        state = {"arm": self.arm.state_dict(), "wall_seconds": self.wall_seconds}
        found = checkpoints.Checkpoint(
            iteration,
            {name: p.detach() for name, p in self.parameters.items()},
            checkpoints.optimizer_tensors(self.optimizer),
            self.ema.state_dict() if self.ema else {},
            state,
        )
        checkpoints.save(self.output / "state", found, self.config_digest)

    def _resume(self) -> tuple[int, list[str]]:
        found, notes = checkpoints.load_newest(self.output / "state", self.config_digest)
        if found is None:
            return 0, notes
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(found.weights[name])
        checkpoints.restore_optimizer(self.optimizer, found.optimizer)
        if self.ema:
            self.ema.load_state_dict(found.ema)
        self.arm.load_state_dict(found.state["arm"])
        self.wall_seconds = found.state["wall_seconds"]
        return found.iteration, [*notes, f"resumed after iteration {found.iteration}"]

    def _wall_clock(self) -> float:
        if self.policy.device.type == "cuda":
            torch.cuda.synchronize(self.policy.device)
        return time.perf_counter()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGUSR1 ask for a stop at the end of the iteration."""

        def request(_number: int, _frame: FrameType | None) -> None:
            self._stop_requested = True

        kept = {number: signal.signal(number, request) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)


STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class _RowLog:
    """Every sample's reward, advantage and group weight: one JSON line per iteration."""

    def __init__(self, path: Path, finished: int) -> None:
        self._file = reopen(path, finished)

    def write(
        self,
        iteration: int,
        chosen: PromptBatch,
        rewards: Tensor,
        diagnostics: dict[str, Tensor],
        result: AdvantageResult,
    ) -> None:
        advantage = sum(term.weight * term.advantage for term in result.terms)
        assert isinstance(advantage, Tensor)
        columns = {name: _numbers(value) for name, value in result.group_columns.items()}
        entry = {
            "iteration": iteration,
            "prompt_id": chosen.ids,
            "ambiguity": chosen.ambiguities,
            "reward": _numbers(rewards),
            "advantage": _numbers(advantage),
            "diagnostics": {name: _numbers(value) for name, value in diagnostics.items()},
            "groups": columns,
        }
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _numbers(values: Tensor) -> list[Any]:
    # Nine significant digits give a float32 back exactly.
    listed: list[Any] = values.double().tolist()
    return listed


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


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process per run: the operating system drops the lock when the process ends."""
    path = folder / ".lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder} is being trained by another process") from None
        file.write(str(os.getpid()))
        file.flush()
        yield
