"""How many samples fit into the device's memory, and what to say when they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import torch

from bpgo.errors import OutOfMemoryError
from bpgo.interfaces import Guidance, Policy, PromptEmbeddings
from bpgo.run.processes import Processes
from bpgo.storage.files import MEMORY_SIGNS

AUTO_WITHOUT_GPU = 96  # what `rollout.batch_size: auto` means where no memory can be measured
USED = 0.9  # share of the free memory that is planned with; the rest is for fragments


@dataclass
class Trial:
    """Runs a policy on some samples: a forward pass, its backward pass, the decoder.

    `prompts` are any embeddings of the policy's; `rows` is how many samples there are at most.
    """

    policy: Policy
    prompts: PromptEmbeddings
    guidance_scale: Guidance
    gradient: bool

    def __call__(self, samples: int) -> int:
        """The most memory that was in use, in bytes (0 without a GPU).

        Raises:
            torch.OutOfMemoryError: if it was not enough.
        """
        device = self.policy.device
        cuda = device.type == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        one = self.prompts.select(slice(0, 1)).to(device, self.policy.dtype)
        prompts = one.select(torch.zeros(samples, dtype=torch.long))
        latents = torch.zeros(samples, *self.policy.latent_shape, device=device)
        sigma = torch.full((samples,), 0.5, device=device)
        try:
            with torch.set_grad_enabled(self.gradient):
                velocity = self.policy.velocity(latents, sigma, prompts, self.guidance_scale)
                if self.gradient:
                    velocity.square().mean().backward()
            del velocity
            with torch.no_grad():
                self.policy.decode(latents)
        finally:
            for parameter in self.policy.trainable().values():
                parameter.grad = None
        return torch.cuda.max_memory_allocated(device) if cuda else 0


def capacity(device: torch.device, reserve: int) -> int:
    """Bytes that a peak may reach; `reserve` is for what comes later. 0 without a GPU."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return int(USED * (free + torch.cuda.memory_reserved(device))) - reserve


def largest_batch(
    trial: Callable[[int], int],
    limit: int,
    room: int,
    in_step: Callable[[float], float] | None = None,
) -> int:
    """The most samples, at most `limit`, that fit; 0 if not even one does.

    Memory grows by the same amount with each sample, so one and two samples say how many fit into
    `room` bytes. With `room` 0 the number is doubled until a trial fails. `in_step` gives the
    largest of several processes' values, where a trial takes all of them (sharded weights); a
    trial that fails then ends the run.
    """
    peaks: list[int] = []
    fit, size = 0, 1
    while size <= limit:
        try:
            peak = trial(size)
        except torch.OutOfMemoryError:
            if in_step:
                raise
            break
        if in_step:
            peak = int(in_step(peak))
        if room and peak > room:
            break
        fit = size
        peaks.append(peak)
        if room and len(peaks) == 2:
            return _predicted(peaks, limit, room)
        size *= 2
    return fit


def _predicted(peaks: list[int], limit: int, room: int) -> int:
    each = max(peaks[1] - peaks[0], 1)
    return max(2, min(limit, 1 + (room - peaks[0]) // each))


def fitting_batch_size(
    trial: Trial,
    rows: int,
    reserve: int = 0,
    processes: Processes | None = None,
    sharded: bool = False,
) -> int:
    """The value of `rollout.batch_size: auto` for `rows` samples: as few forward passes as fit.

    All processes get the same. The samples of a forward pass are as many as possible, and about
    equal in number.

    Raises:
        OutOfMemoryError: if not even one sample fits.
    """
    device = trial.policy.device
    if device.type != "cuda":
        return AUTO_WITHOUT_GPU
    group = processes or Processes()
    room = -int(group.largest(-capacity(device, reserve)))
    found = largest_batch(trial, rows, room, group.largest if sharded else None)
    found = -int(group.largest(-found))
    if found == 0:
        raise OutOfMemoryError(
            f"not even one sample fits into the memory of {_name(device)}:"
            f" {' '.join(_advice(trial.gradient))}"
        )
    return -(-rows // -(-rows // found))


@contextmanager
def explained(
    what: str,
    batch_size: int,
    trial: Trial,
    rows: int,
    measure: bool = True,
    key: Literal["rollout", "evaluation"] = "rollout",
) -> Iterator[None]:
    """Inside the block a full memory becomes one message: what was done, what would fit.

    `what` names the work, `batch_size` its present `{key}.batch_size`; `rows` samples are there.
    What would fit is measured by `trial`, unless other processes would have to take part in it.

    Raises:
        OutOfMemoryError: nothing was changed by it; the last checkpoint stays.
    """
    try:
        yield
        return
    except (torch.OutOfMemoryError, MemoryError) as error:
        reason = _one_line(error)
    except RuntimeError as error:
        if not any(sign in str(error) for sign in MEMORY_SIGNS):
            raise
        reason = _one_line(error)
    # Outside of `except`, so that the failed pass's tensors are freed before the trial.
    fits = 0
    with suppress(Exception):  # what went wrong is told without it, too
        room = capacity(trial.policy.device, 0)
        fits = min(largest_batch(trial, rows, room), batch_size - 1) if measure else 0
    lower = f"Set {key}.batch_size to {fits}: so many would fit."
    advice = [lower if fits else f"Lower {key}.batch_size."]
    kept = "Finished work is kept, and the same command goes on from it with the new value."
    raise OutOfMemoryError(
        f"{what}: the memory of {_name(trial.policy.device)} is full with {batch_size} samples at"
        f" a time ({key}.batch_size). {' '.join([*advice, *_advice(trial.gradient), kept])}"
        f" ({reason})"
    )


@contextmanager
def reward_explained(what: str) -> Iterator[None]:
    """As `explained`, for rewards, which have batch sizes of their own."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(
            f"{what}: a reward fills the memory. Lower the reward's batch_size"
            " (overrides.rewards.NAME.batch_size), or rollout.batch_size, which leaves more room"
            f" for the reward. Finished work is kept. ({_one_line(error)})"
        ) from None


def _advice(gradient: bool) -> list[str]:
    advice = ["A smaller model.resolution takes less."]
    if gradient:
        advice.insert(0, "model.gradient_checkpointing: true needs far less in the update.")
    return advice


def _name(device: torch.device) -> str:
    if device.type != "cuda":
        return "this machine"
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f"{torch.cuda.get_device_name(device)} ({total:.0f} GiB)"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
