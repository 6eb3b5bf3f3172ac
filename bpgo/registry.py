"""Name -> module. The only way from a word in a YAML file to a class; add one line to extend.

Importing this file imports none of the modules.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bpgo.errors import UserError, suggest

# The module of an algorithm exports its class as `ARM`.
ARMS = {
    "grpo": "baselines.grpo",
    "dance_grpo": "baselines.dance_grpo",
    "flow_grpo": "baselines.flow_grpo",
    "mix_grpo": "baselines.mix_grpo",
    "branch_grpo": "baselines.branch_grpo",
    "grpo_guard": "baselines.grpo_guard",
    "diffusion_nft": "baselines.diffusion_nft",
    "awm": "baselines.awm",
    "dgpo": "baselines.dgpo",
    "crd": "baselines.crd",
    "flow_dppo": "baselines.flow_dppo",
    "tempflow_grpo": "baselines.tempflow_grpo",
    "flash_grpo": "baselines.flash_grpo",
    "gdpo": "baselines.gdpo",
    "pref_grpo": "baselines.pref_grpo",
    "ddpo": "baselines.ddpo",
    "vipo": "baselines.vipo",
}

# The module of a trust rule exports its class as `TRUST`.
TRUST = {
    "bpgo": "bpgo.trust.bpgo",
    "shuffled": "bpgo.trust.shuffled",
    "constant": "bpgo.trust.constant",
    "anti": "bpgo.trust.anti",
    "pessimistic": "bpgo.trust.pessimistic",
    "gardo": "bpgo.trust.gardo",
    "agreement": "bpgo.trust.agreement",
    "signal_to_noise": "bpgo.trust.signal_to_noise",
    "deviation": "bpgo.trust.deviation",
    "specified": "bpgo.trust.specified",
    "true_reliability": "bpgo.trust.true_reliability",
    "true_reward": "bpgo.trust.true_reward",
    "random_reward": "bpgo.trust.random_reward",
}

# The module of a reward exports its class as `REWARD`.
REWARDS = {
    "hpsv2": "bpgo.rewards.hpsv2",
    "hpsv2_official": "bpgo.rewards.hpsv2_official",
    "pickscore": "bpgo.rewards.pickscore",
    "clip_score": "bpgo.rewards.clip_score",
    "aesthetic": "bpgo.rewards.aesthetic",
    "weighted_sum": "bpgo.rewards.weighted_sum",
    "scenes_preference": "bpgo.scenes.image.reward",
    "scenes_oracle": "bpgo.scenes.image.oracle_reward",
    "scenes_video_preference": "bpgo.scenes.video.reward",
    "scenes_video_oracle": "bpgo.scenes.video.oracle_reward",
    "image_reward": "bpgo.rewards.image_reward",
    "image_reward_official": "bpgo.rewards.image_reward_official",
    "frame_mean": "bpgo.rewards.frame_mean",
    "videoclip_xl": "bpgo.rewards.videoclip_xl",
    "videoalign": "bpgo.rewards.videoalign",
    "qwen3_vl_embedding": "bpgo.rewards.qwen3_vl_embedding",
}

# The module of a feature extractor exports its class as `FEATURES`.
FEATURES = {
    "scenes": "bpgo.scenes.image.features",
    "scenes_video": "bpgo.scenes.video.features",
    "dinov2": "bpgo.rewards.dinov2",
    "patches": "bpgo.rewards.patches",
}

# The module of a model exports its class as `MODEL`.
MODELS = {
    "flux": "bpgo.models.flux",
    "stable_diffusion_3": "bpgo.models.stable_diffusion_3",
    "wan": "bpgo.models.wan",
}

# The module of a prompt set exports its class as `PROMPTS`.
PROMPTS = {
    "scenes": "bpgo.scenes.image.prompts",
    "scenes_video": "bpgo.scenes.video.prompts",
    "file": "bpgo.prompts.file",
}


def load_arm_class(name: str) -> type[Any]:
    """The class of an algorithm, a `bpgo.core.arm.Arm`; `UserError` if it is not registered."""
    return _load(ARMS, name, "algorithm", "ARM")


def load_trust_class(name: str) -> type[Any]:
    """The class of a trust rule, a `bpgo.core.trust.Trust`; `UserError` if it is not registered."""
    return _load(TRUST, name, "trust rule", "TRUST")


def load_reward_class(name: str) -> type[Any]:
    """The class of a kind of reward; `UserError` if it is not registered."""
    return _load(REWARDS, name, "reward kind", "REWARD")


def load_features_class(name: str) -> type[Any]:
    """The class of a kind of features; `UserError` if it is not registered."""
    return _load(FEATURES, name, "kind of features", "FEATURES")


def load_model_class(name: str) -> type[Any]:
    """The class of a kind of model; `UserError` if it is not registered."""
    return _load(MODELS, name, "model kind", "MODEL")


def load_prompts_class(name: str) -> type[Any]:
    """The class of a kind of prompt set; `UserError` if it is not registered."""
    return _load(PROMPTS, name, "prompt set kind", "PROMPTS")


def _load(modules: dict[str, str], name: str, what: str, attribute: str) -> Any:
    if name not in modules:
        raise UserError(
            f"{what} '{name}' is not registered.{suggest(name, modules)}"
            f" Known: {', '.join(sorted(modules))}"
        )
    return getattr(import_module(modules[name]), attribute)
