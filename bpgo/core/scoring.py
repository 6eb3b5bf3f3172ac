"""Decode samples and score them, some at a time: a batch of clips is larger than its latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bpgo.config.model import ModelSettings
from bpgo.core.rollout import chunks
from bpgo.core.trust import TrustSettings
from bpgo.errors import NonFiniteError
from bpgo.interfaces import Policy, Reward, SummedReward, rewards_and_parts
from bpgo.prompts.first_frames import read_first_frames
from bpgo.records import Calibration, GroupRewards, Plan, PromptBatch, Samples
from bpgo.run.processes import Processes

TRAINING = ""  # the training reward among the names of others
PART = "part_"  # before the name of a part of a summed training reward, where it is logged
OBSERVED = "/observed"  # what an arm keeps of the decoded samples; no reward can have this name

# Numbers of decoded samples that are held at a time, 1 GiB: 85 images of 1024 x 1024, 26 clips of
# 33 frames of 240 x 416.
HELD = 2**28


def decoded_shape(model: ModelSettings) -> tuple[int, ...]:
    """The shape of one decoded sample: an image `(3, H, W)` or a clip `(F, 3, H, W)`."""
    image = (3, model.resolution, model.columns)
    return image if model.makes == "image" else (model.frames, *image)


def samples_for(pixels: Tensor, prompts: PromptBatch, model: ModelSettings) -> Samples:
    """Images or clips `[B, ...]` and what their B prompts asked for, first frames included."""
    frames = read_first_frames(prompts.first_frames, model)
    return Samples(pixels, prompts.texts, None if frames is None else frames.to(pixels.device))


@torch.no_grad()
def score_latents(
    latents: Tensor,
    prompts: PromptBatch,
    model: ModelSettings,
    decode: Callable[[Tensor], Tensor],
    score: Callable[[Samples], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """What `score` says of the samples of `latents` `[B, ...]`, `[B]` by name.

    Args:
        latents: B samples at noise level 0.
        prompts: of each sample.
        model: what it makes says how many samples are decoded at a time.
        decode: from latents to images or clips in [0, 1].
        score: from some decoded samples to values by name.
    """
    size = max(1, HELD // math.prod(decoded_shape(model)))
    found = [
        score(samples_for(decode(latents[rows]), prompts[rows], model))
        for rows in chunks(len(latents), size)
    ]
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


@dataclass(frozen=True)
class Scored:
    """What a batch's samples earned.

    `rewards` `[P, G]` of the training reward; `diagnostics` `[P, G]` by name, the parts of a summed
    training reward among them (`PART` before the name, in their own units); `features`
    `[P, G, ...]`, what the arm observed; `log_probs` `[P, G, T]`, of the steps that were drawn.
    """

    rewards: Tensor
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None
    log_probs: Tensor | None = None

    @property
    def parts(self) -> dict[str, Tensor]:
        """The parts' rewards `[P, G]` by their own names."""
        return {k.removeprefix(PART): v for k, v in self.diagnostics.items() if k.startswith(PART)}

    def gathered(self, processes: Processes) -> Scored:
        """The groups of all processes."""
        others = {name: processes.gather(each) for name, each in self.diagnostics.items()}
        kept = (self.features, self.log_probs)
        found = [None if each is None else processes.gather(each) for each in kept]
        return Scored(processes.gather(self.rewards), others, *found)


def score_batch(
    latents: Tensor,
    chosen: PromptBatch,
    reward: Reward,
    diagnostics: dict[str, Reward],
    policy: Policy,
    decode: Callable[[Tensor], Tensor],
    observe: Callable[[Tensor], Tensor | None],
) -> Scored:
    """Decode the samples `latents` `[B, ...]` of the P prompts `chosen`, and score them.

    Raises:
        NonFiniteError: for a training reward that is not a number.
    """
    group = len(latents) // len(chosen)
    prompts = chosen[[row for row in range(len(chosen)) for _ in range(group)]]

    def call(samples: Samples) -> dict[str, Tensor]:
        found, parts = rewards_and_parts(reward, samples)
        others = {name: one(samples) for name, one in diagnostics.items()}
        observed = observe(samples.pixels)
        kept = {} if observed is None else {OBSERVED: observed}
        return {TRAINING: found, **others, **{f"{PART}{k}": v for k, v in parts.items()}, **kept}

    found = score_latents(latents, prompts, policy.settings, decode, call)
    features = found.pop(OBSERVED, None)
    by_group = {name: values.float().view(len(chosen), group) for name, values in found.items()}
    rewards = by_group.pop(TRAINING)
    _check_rewards(rewards, chosen)
    if features is not None:
        features = features.unflatten(0, (len(chosen), group))
    return Scored(rewards, by_group, features)


def _check_rewards(rewards: Tensor, chosen: PromptBatch) -> None:
    bad = (~torch.isfinite(rewards)).nonzero()
    if len(bad):
        row, sample = bad[0].tolist()
        raise NonFiniteError(
            f"the training reward of prompt '{chosen.ids[row]}' ({chosen.texts[row]!r}), sample"
            f" {sample}, is {float(rewards[row, sample])}"
        )


def group_rewards(
    chosen: PromptBatch,
    scored: Scored,
    plan: Plan,
    reward: Reward,
    calibration: Calibration,
    trust: TrustSettings | None,
    sigmas: Tensor,
    sites: tuple[int, ...] | None = None,
) -> GroupRewards:
    """What an arm and its trust rule see of the P prompts `chosen`.

    Of the diagnostics only those that the rule names are among it.
    """
    summed = reward if isinstance(reward, SummedReward) else None
    first_frame = None
    if chosen.first_frames is not None:  # what they earn
        known = calibration.first_frames
        first_frame = torch.tensor([known.get(prompt, math.nan) for prompt in chosen.ids])
    named = trust.reference_rewards() if trust else []
    return GroupRewards(
        scored.rewards,
        chosen.ids,
        calibration,
        first_frame,
        summed.scaled(scored.parts) if summed else {},
        summed.weights if summed else {},
        torch.tensor(chosen.ambiguities),
        {name: scored.diagnostics[name] for name in named},
        scored.features,
        plan,
        scored.log_probs,
        sigmas,
        sites,
    )
