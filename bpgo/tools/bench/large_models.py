"""The models that `bench --model` knows, and what an iteration of one computes.

A model's file in `config/models` and its experiment's in `config` are the only places that say how
it trains; here is which they are, and how small a tiny copy is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.errors import UserError, suggest
from bpgo.tools.architectures import PUBLISHED, Architecture

METHOD, REFERENCE = "bpgo", "grpo"  # the arms whose iterations are compared
# What a tiny copy has of its own, whatever the model.
TINY = {"resolution": 32, "prompt_tokens": 8, "lora": {"rank": 2}}


@dataclass(frozen=True)
class Benchmarked:
    """A model: its experiment's file in `config/`, and what differs in a tiny copy."""

    experiment: str
    transformer: dict[str, Any]
    vae: dict[str, Any]
    settings: dict[str, Any]  # beside `TINY`
    oracle: str = "oracle"  # a reward of the embedded world that fits what the model makes


_IMAGE_VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [8, 8, 8],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 32,
    "mid_block_add_attention": False,
}
MODELS = {
    "flux": Benchmarked(
        "flux_t2i",
        {
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "axes_dims_rope": [4, 2, 2],
        },
        _IMAGE_VAE,
        {},
    ),
    "sd3": Benchmarked(
        "sd35_t2i",
        {
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "caption_projection_dim": 16,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "pos_embed_max_size": 16,
            "dual_attention_layers": [0],
        },
        _IMAGE_VAE,
        {},
    ),
    "wan21": Benchmarked(
        "wan21_t2v",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 12,
            "num_attention_heads": 2,
            "text_dim": 16,
            "freq_dim": 16,
            "ffn_dim": 32,
        },
        {
            "base_dim": 4,
            "z_dim": 4,
            "num_res_blocks": 1,
            "latents_mean": [0.0] * 4,
            "latents_std": [1.0] * 4,
        },
        {"width": 32, "frames": 5},
        oracle="video_oracle",
    ),
}


@dataclass(frozen=True)
class Sizes:
    """What a case of the benchmark computes; equal for all cases of a run.

    None: what the model's file says, and of `steps` its experiment's; a tiny copy has its own.
    """

    model: str  # a key of `MODELS`
    size: str = "full"  # or `tiny`: the same code in seconds on a CPU
    dtype: str = "bfloat16"
    resolution: int | None = None  # pixels, the height
    prompts: int = 2
    group_size: int = 4
    steps: int | None = None
    gradient_checkpointing: bool | None = None
    width: int | None = None  # pixels
    frames: int | None = None  # of a clip


def check_sizes(sizes: Sizes) -> None:
    """`UserError` for a model, size or type that is unknown, and for options that do not fit."""
    check_choice("--model", sizes.model, list(MODELS))
    check_choice("--size", sizes.size, ["full", "tiny"])
    check_choice("--dtype", sizes.dtype, ["float32", "bfloat16"])
    for option, value in (("--frames", sizes.frames), ("--width", sizes.width)):
        if value is not None and MODELS[sizes.model].oracle == "oracle":
            raise UserError(
                f"{option}: {value} is for a model that makes clips; '{sizes.model}' makes square"
                " images: leave it out"
            )


def check_choice(option: str, value: str, allowed: list[str]) -> None:
    """`UserError` for a value that is not allowed."""
    if value not in allowed:
        raise UserError(
            f"{option}: '{value}' is unknown.{suggest(value, allowed)}"
            f" Allowed: {', '.join(allowed)}"
        )


def architecture(sizes: Sizes) -> Architecture:
    """The published architecture, or its tiny copy."""
    chosen = MODELS[sizes.model]
    name = _experiment(chosen)["model"]
    values = config.read_yaml(config.default_configfile().parent / "models" / f"{name}.yaml")
    found = PUBLISHED[values["path"]]
    if sizes.size == "full":
        return found
    return replace(
        found, transformer=found.transformer | chosen.transformer, vae=found.vae | chosen.vae
    )


def settings_of(sizes: Sizes, parameters: str, batch_size: int) -> Settings:
    """Settings of one case, checked like any configuration.

    The model's file; its experiment's sampler, guidance and arms; for the rest the default's.
    """
    chosen, place = MODELS[sizes.model], config.default_configfile()
    experiment, values = _experiment(chosen), config.read_yaml(place)
    for key in ("smoke", "features"):
        values.pop(key, None)
    model, changes = experiment["model"], experiment["overrides"]
    values |= {
        "title": f"Benchmark of {sizes.model}",
        "model": model,
        "overrides": {
            "models": {model: _changes(sizes)},
            "arms": {REFERENCE: changes["arms"][REFERENCE]},  # which the other arm builds on
            "trust": changes.get("trust", {}),
        },
        "sweeps": {},
        "experiments": {
            "bench": {
                "title": "Benchmark",
                "training_reward": chosen.oracle,  # the benchmark puts its own in its place
                "judges": [chosen.oracle],
                "arms": [REFERENCE, METHOD],
                "seeds": [1],
            }
        },
    }
    values["analysis"] |= {"main_metric": chosen.oracle}
    values["evaluation"] |= {"divergence_prompts": 0, "diversity_prompts": 0}
    values["rollout"] |= experiment["rollout"] | {
        "prompts_per_iteration": sizes.prompts,
        "group_size": sizes.group_size,
        "batch_size": batch_size,
    }
    if sizes.steps is not None:
        values["rollout"]["steps"] = sizes.steps
    # Whole groups, where there is one for each optimizer step.
    enough = sizes.prompts >= experiment["training"]["optimizer_steps"]
    # The learning rate changes no cost; a small one keeps random weights from running away.
    values["training"] |= {
        "optimizer_steps": experiment["training"]["optimizer_steps"],
        "split": experiment["training"].get("split", "samples") if enough else "samples",
        "parameters": parameters,
        "learning_rate": 1e-7,
        "ema_decay": experiment["training"].get("ema_decay", 0.0),
    }
    found = config.resolve(values, place.parent, "the benchmark")
    # Beyond what a run may have: how far ratios are from 1 is a figure here, not an error.
    training = found.training.model_copy(update={"ratio_tolerance": 1e9})
    return found.model_copy(update={"training": training})


def _experiment(chosen: Benchmarked) -> dict[str, Any]:
    return config.read_yaml(config.default_configfile().parent / f"{chosen.experiment}.yaml")


def _changes(sizes: Sizes) -> dict[str, Any]:
    """What differs from the model's file."""
    asked = {
        "dtype": sizes.dtype,
        "resolution": sizes.resolution,
        "width": sizes.width,
        "frames": sizes.frames,
        "gradient_checkpointing": sizes.gradient_checkpointing,
    }
    tiny = TINY | MODELS[sizes.model].settings if sizes.size == "tiny" else {}
    return tiny | {name: value for name, value in asked.items() if value is not None}
