"""A training iteration, taken apart.

What the transformer itself costs is measured by doing it again, bare: the inputs of every call that
an iteration makes are kept, and right after the iteration the same calls run alone, forward, and
backward where the iteration needed gradients. Everything else in the iteration is overhead:
sampler, decoder, rewards, advantages, loss, optimizer.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bpgo.core.layout import FEWEST_ROWS, Layout
from bpgo.core.rollout import chunks, rollout, rollout_noise
from bpgo.core.trainer import Trainer
from bpgo.records import Passes
from bpgo.run.allocator import page_faults
from bpgo.run.determinism import repeatable
from bpgo.seeding import generator
from bpgo.tools.bench.measure import Seconds, Stopwatch

PARTS = ("rollout", "reward", "update")
PIECES = ("decode", "training reward", "diagnostics", "optimizer step")
REPLAYED = {"forward": False, "forward and backward": True}  # calls by whether they had a gradient


def passes_made(entry: dict[str, Any]) -> Passes:
    """Of all samples of an iteration together, as its metrics say."""
    return Passes(entry["rollout_passes"], entry["trained_passes"], entry["other_passes"])


def mean_passes(several: list[Passes]) -> dict[str, float]:
    """Of several iterations, by kind."""
    kinds = ("rollout", "trained", "others")
    return {kind: statistics.mean(getattr(one, kind) for one in several) for kind in kinds}


Precision = dict[str, Any]  # what `torch.autocast` takes


def _precision(device: str) -> Precision:
    """Whether and how autocast is on now."""
    return {
        "device_type": device,
        "dtype": torch.get_autocast_dtype(device),
        "enabled": torch.is_autocast_enabled(device),
    }


@dataclass(frozen=True)
class Calls:
    """Of a transformer: how many, and their rows. A row is one sample at one noise level."""

    number: int = 0
    rows: int = 0

    def __add__(self, other: Calls) -> Calls:
        return Calls(self.number + other.number, self.rows + other.rows)


def _none_made() -> dict[bool, Calls]:
    """By whether they had a gradient."""
    return {gradient: Calls() for gradient in REPLAYED.values()}


class TransformerCalls:
    """Counts a policy's calls of its transformers; keeps their inputs, to make them again, bare."""

    def __init__(self, transformers: Iterable[nn.Module]) -> None:
        self.recording = False
        self.made = _none_made()
        self.kept: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any], bool, Precision]] = []
        for transformer in transformers:
            transformer.register_forward_hook(self._see, with_kwargs=True)

    def clear(self) -> None:
        """Forget all calls."""
        self.made = _none_made()
        self.kept.clear()

    def _see(
        self, transformer: nn.Module, positional: tuple[Any, ...], named: dict[str, Any], found: Any
    ) -> None:
        gradient = torch.is_grad_enabled()
        self.made[gradient] += Calls(1, len(found[0]))
        if self.recording:
            precision = _precision(found[0].device.type)
            self.kept.append((transformer, positional, named, gradient, precision))

    def replay(self, trained: bool) -> None:
        """Every kept call with a gradient again, backward too, or every one without."""
        for transformer, positional, named, gradient, precision in list(self.kept):
            if gradient != trained:
                continue
            with torch.set_grad_enabled(gradient), torch.autocast(**precision):
                output = transformer(*positional, **named)[0]
            if gradient:
                with repeatable(output.device):
                    output.backward(torch.ones_like(output))
                transformer.zero_grad(set_to_none=True)


def _transformers(trainer: Trainer) -> list[nn.Module]:
    """The policy's, and those of further policies that are models of their own."""
    policies = [trainer.policy]
    policies += [
        getattr(each, "__self__", trainer.policy) for each in trainer.updater.others.values()
    ]
    return list({id(each): each for each in (one.transformer for one in policies)}.values())


class Instrument:
    """A trainer with clocks at its parts."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.entry: dict[str, Any] = {}  # what `metrics.jsonl` would say of the last iteration
        self.page_faults = 0  # of the last iteration
        self.made: dict[str, Calls] = {}  # of the last iteration, by `REPLAYED`
        self.watch = watch = Stopwatch(trainer.policy.device)
        self.calls = TransformerCalls(_transformers(trainer))
        trainer.clock = watch.clock
        trainer.policy.decode = watch.wrap(trainer.policy.decode, "decode")  # type: ignore[method-assign]
        trainer.reward = watch.wrap(trainer.reward, "training reward")
        trainer.diagnostics = {
            name: watch.wrap(reward, "diagnostics") for name, reward in trainer.diagnostics.items()
        }
        trainer.optimizer.step = watch.wrap(  # type: ignore[method-assign]
            trainer.optimizer.step, "optimizer step"
        )

    def iterate(self, iteration: int, replay: bool = False) -> dict[str, Seconds]:
        """One iteration's seconds: `total`, `PARTS` and `PIECES`.

        If replayed, also `REPLAYED` and their sum, `transformer`.
        """
        self.watch.reset()
        self.calls.clear()
        self.calls.recording = replay
        faults = page_faults()
        self.entry = self.trainer.iterate(iteration)
        self.page_faults = page_faults() - faults
        self.calls.recording = False
        start, rolled, scored, end = self.watch.readings
        found = {
            "total": end - start,
            "rollout": rolled - start,
            "reward": scored - rolled,
            "update": end - scored,
            **{piece: self.watch.parts[piece] for piece in PIECES},
        }
        self.made = {name: self.calls.made[gradient] for name, gradient in REPLAYED.items()}
        if replay:
            for name, gradient in REPLAYED.items():
                with self.watch.measure(name):
                    self.calls.replay(gradient)
                found[name] = self.watch.parts[name]
            found["transformer"] = sum((found[name] for name in REPLAYED), Seconds())
            self.calls.clear()
        return found

    def small_call(self) -> dict[str, tuple[Seconds, Calls]]:
        """What the policy takes for few samples at one noise level, by `REPLAYED`."""
        trainer, policy = self.trainer, self.trainer.policy
        few = min(FEWEST_ROWS, trainer.updater.batch_size)
        given = (
            torch.zeros(few, *policy.latent_shape, device=policy.device),
            trainer.sigmas[:1].expand(few),
            trainer.embeddings.select(torch.arange(few) % len(trainer.prompts)).to(
                policy.device, policy.dtype
            ),
            trainer.settings.rollout.guidance_scale,
        )
        found = {}
        for name, gradient in REPLAYED.items():
            self.calls.clear()
            self.calls.recording = True
            with torch.set_grad_enabled(gradient):
                policy.velocity(*given)
            self.calls.recording = False
            made = self.calls.made[gradient]
            start = self.watch.read()
            self.calls.replay(gradient)
            found[name] = self.watch.read() - start, made
        self.calls.clear()
        return found


def iterations_of_two(
    reference: Instrument, method: Instrument, pairs: int
) -> Iterable[tuple[dict[str, Seconds], dict[str, Seconds]]]:
    """Iterations of two arms, one after the other; who goes first alternates.

    The first iteration of each warms up and is left out.
    """
    for instrument in (reference, method):
        instrument.iterate(1, replay=instrument is reference)
    for pair in range(pairs):
        iteration = pair + 2
        if pair % 2:
            second = method.iterate(iteration)
            yield reference.iterate(iteration, replay=True), second
        else:
            first = reference.iterate(iteration, replay=True)
            yield first, method.iterate(iteration)


def rollout_seconds(trainer: Trainer, batch_size: int, samples: int, iteration: int) -> Seconds:
    """A rollout of `samples` trajectories in forward passes of `batch_size`, and their decoding.

    Each sample is computed on its own at every step, as if none shared its start.
    """
    sizes, arm = trainer.settings.rollout, trainer.arm
    rows = torch.arange(samples) // sizes.group_size % len(trainer.prompts)
    prompts = [f"bench-{row}" for row in range(-(-samples // sizes.group_size))]
    drawn_sizes = sizes.model_copy(update={"prompts_per_iteration": len(prompts)})
    plan = arm.plan(drawn_sizes, iteration, generator(0, "bench", iteration))
    noise = rollout_noise(
        trainer.policy.latent_shape, sizes.steps, 0, iteration, prompts, plan.noise_of
    )[:samples]
    watch = Stopwatch(trainer.policy.device)
    with watch.measure("rollout"):
        drawn = rollout(
            trainer.policy,
            trainer.embeddings.select(rows),
            noise,
            trainer.sigmas,
            arm.kernel,
            arm.noise_level,
            plan.part(slice(samples)),
            Layout(1, samples, batch_size),
            sizes.guidance_scale,
        )
        for part in chunks(samples, batch_size):
            trainer.policy.decode(drawn.latents[part, -1])
    return watch.parts["rollout"]
