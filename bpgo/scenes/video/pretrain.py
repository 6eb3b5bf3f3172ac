"""Makes the video world's weights from nothing: codec, two base policies, reward models.

The defaults are the settings that made the shipped weights, with one thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLWan

from bpgo.scenes.course import say
from bpgo.scenes.image.reward_models import RewardModel
from bpgo.scenes.video import codec as codec_stage
from bpgo.scenes.video import reward_training as reward_stage
from bpgo.scenes.video import sft
from bpgo.scenes.video.policy import Policy, save_policy
from bpgo.scenes.weights import clip_policy_folder, save_clip_reward
from bpgo.scenes.worlds import POOLS, Pool

SEED = 0


def train_codec(steps: int | None = None) -> AutoencoderKLWan:
    """Train the codec, then its decoder alone (``steps`` for each)."""
    few = _few(steps)
    codec = codec_stage.train_codec(seed=SEED, **few)
    codec_stage.refine_decoder(codec, seed=SEED, **few)
    count = 512 if steps is None else 16
    say("clip codec", codec_stage.reconstruction_scores(codec, count))
    return codec.eval().requires_grad_(False)


def train_policies(
    output: Path, codec: AutoencoderKLWan, steps: int | None = None
) -> tuple[Policy, Policy]:
    """Train the text-to-video policy, then the image-to-video one from it; save both."""
    few = _few(steps)
    text = sft.train_text_to_video(codec, seed=SEED, **few)
    image = sft.train_image_to_video(text, seed=SEED, **few)
    for policy in (text, image):
        save_policy(policy, clip_policy_folder(policy.task, output))
        say(f"{policy.task} policy", sft.policy_scores(policy, 256 if steps is None else 16))
    return text, image


def train_rewards(
    output: Path, policies: tuple[Policy, ...], steps: int | None = None
) -> dict[Pool, RewardModel]:
    """Train and save the three pools' reward models, which serve both tasks."""
    share = 1.0 if steps is None else 0.001
    fresh = reward_stage.mutated_pairs(500 if steps is None else 16, SEED + 1, "t2v", "held_out")
    models = {}
    for pool in POOLS:
        pairs = reward_stage.preference_pairs(policies, pool, SEED, share)
        few = {} if steps is None else {"steps": steps}
        model = reward_stage.train_reward(pairs, pool, seed=SEED, **few)
        save_clip_reward(model, pool, output)
        accuracy = {
            "accuracy on held-out mutated pairs": reward_stage.preference_accuracy(
                model, fresh, pool
            ),
            "as the oracle": reward_stage.oracle_accuracy(model, fresh),
        }
        say(f"clip reward {pool}", accuracy)
        models[pool] = model
    return models


def pretrain_video(output: Path, steps: int | None = None) -> None:
    """Make all weights of the video world below ``output``; see `bpgo.scenes.pretrain`."""
    policies = train_policies(output, train_codec(steps), steps)
    train_rewards(output, policies, steps)


def _few(steps: int | None) -> dict[str, Any]:
    """Arguments of a stage that only shows that it runs."""
    return {} if steps is None else {"steps": steps, "scenes": 64}
