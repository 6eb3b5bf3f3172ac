"""Policies of published architectures with random weights, made on the device itself.

Weights change no cost: a product takes as long with any numbers. So the speed of FLUX.1-dev is
measured without its weights, by the code that trains it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from bpgo import config, registry
from bpgo.core.interfaces import Policy, PromptEmbeddings, Reward
from bpgo.models.architectures import PUBLISHED, Architecture
from bpgo.planning.model import CLIP_TOKENS
from bpgo.settings import Settings

METHOD, REFERENCE = "bpgo", "grpo"  # the arms whose iterations are compared


@dataclass(frozen=True)
class Benchmarked:
    """A model that `bench --model` knows: its file in config/models, its guidance, a tiny copy."""

    file: str
    guidance_scale: float
    tiny: dict[str, Any]  # what differs in the transformer's configuration


MODELS = {
    "flux": Benchmarked(
        "flux1_dev",
        3.5,  # embedded: an input of the transformer
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
    ),
    "sd3": Benchmarked(
        "sd35_medium",
        4.5,  # true guidance: every forward pass twice
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
    ),
}
TINY_VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [8, 8, 8],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 32,
    "mid_block_add_attention": False,
}


@dataclass(frozen=True)
class Sizes:
    """What a case of the benchmark computes; equal for all cases of a run."""

    model: str  # a key of `MODELS`
    size: str = "full"  # or `tiny`: the same code in seconds on a CPU
    dtype: str = "bfloat16"
    resolution: int | None = None  # pixels; None: the model file's, 32 for tiny
    prompts: int = 2
    group_size: int = 4
    steps: int = 6
    gradient_checkpointing: bool | None = None  # None: the model file's


def architecture(sizes: Sizes) -> Architecture:
    """The published architecture, or its tiny copy."""
    chosen = MODELS[sizes.model]
    values = config.read_yaml(config.default_configfile().parent / "models" / f"{chosen.file}.yaml")
    found = PUBLISHED[values["path"]]
    if sizes.size == "full":
        return found
    return replace(found, transformer=found.transformer | chosen.tiny, vae=found.vae | TINY_VAE)


def settings_of(sizes: Sizes, parameters: str, batch_size: int) -> Settings:
    """Settings of one case, checked like any configuration: the model's file, two shipped arms."""
    chosen, place = MODELS[sizes.model], config.default_configfile()
    resolution = sizes.resolution or (32 if sizes.size == "tiny" else None)
    changes = {
        "dtype": sizes.dtype,
        "resolution": resolution,
        "gradient_checkpointing": sizes.gradient_checkpointing,
        "prompt_tokens": 8 if sizes.size == "tiny" else None,
        "lora": {"rank": 2} if sizes.size == "tiny" else None,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    values = config.read_yaml(place)
    values.pop("smoke", None)
    values |= {
        "title": f"Benchmark of {sizes.model}",
        "model": chosen.file,
        "overrides": {"models": {chosen.file: given}},
        "sweeps": {},
        "experiments": {
            "bench": {
                "title": "Benchmark",
                "training_reward": "oracle",  # the benchmark puts its own in its place
                "judges": ["oracle"],
                "arms": [REFERENCE, METHOD],
                "seeds": [1],
            }
        },
    }
    values["rollout"] |= {
        "prompts_per_iteration": sizes.prompts,
        "group_size": sizes.group_size,
        "steps": sizes.steps,
        "guidance_scale": chosen.guidance_scale,
        "batch_size": batch_size,
    }
    # The learning rate changes no cost; a small one keeps random weights from running away. Large
    # tolerance: how far ratios are from 1 is a figure here, not an error.
    values["training"] |= {
        "parameters": parameters,
        "learning_rate": 1e-7,
        "ratio_tolerance": 1e9,
    }
    return config.resolve(values, place.parent, "the benchmark")


def random_policy(settings: Settings, chosen: Architecture, device: str) -> Policy:
    """The adapter's own policy around modules with random weights.

    Raises:
        torch.OutOfMemoryError: if the device has too little memory.
    """
    from bpgo.models.pipeline import AUTOENCODER, Modules

    kind = registry.load_model_class(settings.model.kind)
    trained_whole = settings.training.parameters == "full"
    weights = torch.float32 if trained_whole else getattr(torch, settings.model.dtype)
    scheduler = _class(
        "diffusers.schedulers.scheduling_flow_match_euler_discrete:FlowMatchEulerDiscreteScheduler"
    )
    modules = Modules(
        _made(kind.TRANSFORMER, chosen.transformer, device, weights),
        _made(AUTOENCODER, chosen.vae, device, getattr(torch, settings.model.vae_dtype)),
        scheduler(**chosen.scheduler),
    )
    policy: Policy = kind(settings.model, settings.training.parameters, device, modules)
    return policy


def random_embeddings(settings: Settings, chosen: Architecture, count: int) -> PromptEmbeddings:
    """Embeddings of `count` prompts and of the empty one, of the real shapes, on the host."""
    draws = torch.Generator().manual_seed(0)
    wide = chosen.pipeline == "StableDiffusion3Pipeline"
    tokens = settings.model.prompt_tokens + (CLIP_TOKENS if wide else 0)
    shapes = {
        "tokens": (tokens, chosen.transformer["joint_attention_dim"]),
        "pooled": (chosen.transformer["pooled_projection_dim"],),
    }
    dtype = getattr(torch, settings.model.dtype)

    def draw(rows: int, name: str) -> Tensor:
        return torch.randn(rows, *shapes[name], generator=draws).to(dtype)

    prompts = {name: draw(count, name) for name in shapes}
    empty = {f"negative_{name}": draw(1, name) for name in shapes} if wide else {}
    return PromptEmbeddings(**prompts, **empty)


def brightness(images: Tensor, texts: list[str]) -> Tensor:  # noqa: ARG001 (as all rewards)
    """The cheapest reward that differs between images: the mean of their pixels, `[B]`."""
    return images.float().mean(dim=(1, 2, 3))


def clip_reward(device: str, size: str = "full") -> Reward:
    """A reward of HPSv2's size: CLIP ViT-H/14 with random weights, cosine of image and text."""
    from transformers import CLIPConfig, CLIPModel

    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    heads = 16
    if size == "tiny":
        vision = text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        heads = 2
    sizes = CLIPConfig(
        vision_config=vision | {"num_attention_heads": heads, "patch_size": 14, "image_size": 224},
        text_config=text | {"num_attention_heads": heads},
        projection_dim=1024,
    )
    with _made_on(device, torch.float32):
        model = CLIPModel(sizes).eval().requires_grad_(False)

    def reward(images: Tensor, texts: list[str]) -> Tensor:
        pixels = torch.nn.functional.interpolate(
            images.float(), (224, 224), mode="bicubic", antialias=True
        )
        tokens = torch.zeros(len(texts), 77, dtype=torch.long, device=images.device)
        with torch.autocast(images.device.type, torch.bfloat16):
            image = model.get_image_features(pixel_values=pixels).pooler_output
            text = model.get_text_features(input_ids=tokens).pooler_output
        return torch.nn.functional.cosine_similarity(image.float(), text.float())

    return reward


def compile_blocks(transformer: Any, backend: str) -> None:
    """`torch.compile` of each block of the transformer, in place; names of weights stay.

    Blocks of one class share what is compiled, which takes a fraction of the whole's time.
    """
    for blocks in transformer.children():
        if isinstance(blocks, torch.nn.ModuleList):
            for block in blocks:
                block.compile(backend=backend, dynamic=False)


def _made(kind: str, values: dict[str, Any], device: str, dtype: torch.dtype) -> Any:
    with _made_on(device, dtype):
        return _class(kind)(**values).eval()


@contextmanager
def _made_on(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Modules made inside are of this type and drawn on the device: no copy on the host."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


def _class(kind: str) -> Any:
    module, name = kind.split(":")
    return getattr(import_module(module), name)
