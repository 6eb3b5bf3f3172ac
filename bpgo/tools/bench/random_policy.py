"""Policies of published architectures with random weights, made on the device itself.

Weights change no cost: a product takes as long with any numbers. So the speed of FLUX.1-dev is
measured without its weights, by the code that trains it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from bpgo import registry
from bpgo.config.settings import Settings
from bpgo.interfaces import Policy, PromptEmbeddings, Reward
from bpgo.records import Samples
from bpgo.rewards.frame_mean import FrameMean, FrameMeanSettings
from bpgo.tools.architectures import Architecture
from bpgo.tools.planning.model import text_tokens
from bpgo.tools.planning.work import TRUE_GUIDANCE

REWARDS = ("brightness", "clip_h14")


def random_policy(settings: Settings, chosen: Architecture, device: str) -> Policy:
    """The adapter's own policy around modules with random weights.

    Raises:
        torch.OutOfMemoryError: if the device has too little memory.
    """
    from bpgo.models.pipeline import Modules

    kind = registry.load_model_class(settings.model.kind)
    trained_whole = settings.training.parameters == "full"
    weights = torch.float32 if trained_whole else getattr(torch, settings.model.dtype)
    given = dict(chosen.scheduler)
    named = given.pop("_class_name", kind.SCHEDULERS[0].split(":")[1])
    (scheduler,) = (name for name in kind.SCHEDULERS if name.split(":")[1] == named)
    modules = Modules(
        _made(kind.TRANSFORMER, chosen.transformer, device, weights),
        _made(kind.CODEC, chosen.vae, device, getattr(torch, settings.model.vae_dtype)),
        _class(scheduler)(**given),
        index=chosen.index,
    )
    policy: Policy = kind(settings.model, settings.training.parameters, device, modules)
    return policy


def random_embeddings(settings: Settings, chosen: Architecture, count: int) -> PromptEmbeddings:
    """Embeddings of `count` prompts and of the empty one, of the real shapes, on the host."""
    draws = torch.Generator().manual_seed(0)
    guided = settings.model.kind in TRUE_GUIDANCE
    shapes: dict[str, tuple[int, ...]] = {
        "tokens": (text_tokens(settings, chosen), chosen.text_width)
    }
    if chosen.pooled_width:
        shapes["pooled"] = (chosen.pooled_width,)
    dtype = getattr(torch, settings.model.dtype)

    def draw(rows: int, name: str) -> Tensor:
        return torch.randn(rows, *shapes[name], generator=draws).to(dtype)

    prompts = {name: draw(count, name) for name in shapes}
    empty = {f"negative_{name}": draw(1, name) for name in shapes} if guided else {}
    return PromptEmbeddings(**prompts, **empty)


def stand_in_reward(name: str, settings: Settings, device: str, size: str) -> Reward:
    """A reward of `REWARDS`, for what the model makes."""
    if name == "brightness":
        return brightness
    image = clip_reward(device, size)
    if settings.model.makes == "image":
        return image
    return FrameMean(FrameMeanSettings(title=name, reward=name), image)


def brightness(samples: Samples) -> Tensor:
    """The cheapest reward that differs between samples: the mean of their pixels, `[B]`."""
    return samples.pixels.float().flatten(1).mean(dim=1)


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

    def reward(samples: Samples) -> Tensor:
        images = samples.pixels
        pixels = torch.nn.functional.interpolate(
            images.float(), (224, 224), mode="bicubic", antialias=True
        )
        tokens = torch.zeros(len(samples), 77, dtype=torch.long, device=images.device)
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
        made = _class(kind)(**values).eval()
    # As diffusers loads published weights: some of Wan's are float32 whatever the rest is.
    kept = set(made._keep_in_fp32_modules or ())
    for name, parameter in made.named_parameters():
        if kept & set(name.split(".")):
            parameter.data = parameter.data.float()
    return made


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
