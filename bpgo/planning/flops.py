"""Floating point operations and parameters of a forward pass, from a model's configuration.

A multiplication and an addition count as two operations. Counted are matrix products, convolutions
and attention, as `torch.utils.flop_counter` does; norms, activations and rotations are not (below
1 %). Tests compare with that counter and with the models' own parameters.

Letters: d width, L tokens (image and text), B = 1 sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TIMESTEP_CHANNELS = 256  # of the sinusoidal embedding, in FLUX and Stable Diffusion 3
DUAL_SHARE = 0.4  # of a block's memory for activations, what a second attention adds


@dataclass(frozen=True)
class Linear:
    """A linear layer: its name in the model, its widths, the vectors a sample sends through it."""

    name: str
    inputs: int
    outputs: int
    rows: int

    def matches(self, target: str) -> bool:
        """Whether an adapter's target names it (peft: the whole name or its last parts)."""
        return self.name == target or self.name.endswith(f".{target}")


@dataclass(frozen=True)
class Transformer:
    """One sample's forward pass, taken apart.

    `attention` lists (width, tokens) of each softmax attention; `norms` counts the parameters that
    belong to no linear layer; `blocks` counts attention blocks, a second attention as part of one.
    """

    width: int
    tokens: int
    linears: list[Linear]
    attention: list[tuple[int, int]]
    norms: int
    blocks: float

    @property
    def parameters(self) -> int:
        """Numbers that a checkpoint holds, position tables left out."""
        return self.norms + sum(
            layer.inputs * layer.outputs + layer.outputs for layer in self.linears
        )

    @property
    def linear_flops(self) -> float:
        """Products with weights."""
        return sum(2.0 * layer.rows * layer.inputs * layer.outputs for layer in self.linears)

    @property
    def attention_flops(self) -> float:
        """Queries x keys and weights x values."""
        return sum(4.0 * tokens**2 * width for width, tokens in self.attention)

    @property
    def forward_flops(self) -> float:
        """One forward pass."""
        return self.linear_flops + self.attention_flops

    def training_flops(self, lora: bool) -> float:
        """Forward and backward pass, without what gradient checkpointing computes again.

        Backward is a product for the inputs' gradients and, for trained weights, one for theirs:
        an adapter (LoRA) leaves the second out. Both operands of attention get a gradient.
        """
        return (
            self.forward_flops + (1 if lora else 2) * self.linear_flops + (2 * self.attention_flops)
        )

    def lora_parameters(self, rank: int, targets: list[str]) -> int:
        """Parameters of an adapter on the layers that `targets` name."""
        return sum(
            rank * (layer.inputs + layer.outputs)
            for layer in self.linears
            if any(layer.matches(target) for target in targets)
        )


def image_tokens(pipeline: str, transformer: dict[str, Any], vae: dict[str, Any], side: int) -> int:
    """Tokens of an image of `side` x `side` pixels."""
    pixels = 2 ** (len(vae["block_out_channels"]) - 1)  # one latent along each side
    patch = 2 if pipeline == "FluxPipeline" else transformer["patch_size"]  # FLUX packs 2 x 2
    return (side // pixels // patch) ** 2


def transformer(pipeline: str, config: dict[str, Any], image: int, text: int) -> Transformer:
    """A transformer's layers and what they cost.

    Args:
        pipeline: `FluxPipeline` or `StableDiffusion3Pipeline`.
        config: the transformer's `config.json`.
        image: image tokens.
        text: text tokens (of Stable Diffusion 3: CLIP's 77 and T5's together).

    Raises:
        KeyError: for another pipeline.
    """
    return {"FluxPipeline": _flux, "StableDiffusion3Pipeline": _sd3}[pipeline](config, image, text)


class _Layers:
    """Collects linear layers under a name."""

    def __init__(self) -> None:
        self.found: list[Linear] = []

    def add(self, name: str, inputs: int, outputs: int, rows: int) -> None:
        self.found.append(Linear(name, inputs, outputs, rows))

    def embed(self, name: str, inputs: int, width: int) -> None:
        """Two layers for a vector a sample (timestep, guidance, pooled text)."""
        self.add(f"time_text_embed.{name}.linear_1", inputs, width, 1)
        self.add(f"time_text_embed.{name}.linear_2", width, width, 1)

    def attend(self, block: str, names: tuple[str, ...], width: int, rows: int) -> None:
        """Queries, keys, values, and the output where there is one."""
        for name in names:
            self.add(f"{block}.{name}", width, width, rows)

    def feed_forward(self, block: str, width: int, rows: int) -> None:
        """Two layers, 4 d wide between."""
        self.add(f"{block}.net.0.proj", width, 4 * width, rows)
        self.add(f"{block}.net.2", 4 * width, width, rows)


_IMAGE = ("to_q", "to_k", "to_v", "to_out.0")
_TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def _flux(config: dict[str, Any], image: int, text: int) -> Transformer:
    """Diffusers `FluxTransformer2DModel`."""
    head, double, single = (
        config[key] for key in ("attention_head_dim", "num_layers", "num_single_layers")
    )
    width, tokens, layers = config["num_attention_heads"] * head, image + text, _Layers()
    channels, out = config["in_channels"], config.get("out_channels") or config["in_channels"]
    layers.add("x_embedder", channels, width, image)
    layers.add("context_embedder", config["joint_attention_dim"], width, text)
    layers.embed("timestep_embedder", TIMESTEP_CHANNELS, width)
    layers.embed("text_embedder", config["pooled_projection_dim"], width)
    if config["guidance_embeds"]:
        layers.embed("guidance_embedder", TIMESTEP_CHANNELS, width)
    for index in range(double):
        block = f"transformer_blocks.{index}"
        layers.add(f"{block}.norm1.linear", width, 6 * width, 1)
        layers.add(f"{block}.norm1_context.linear", width, 6 * width, 1)
        layers.attend(f"{block}.attn", _IMAGE, width, image)
        layers.attend(f"{block}.attn", _TEXT, width, text)
        layers.feed_forward(f"{block}.ff", width, image)
        layers.feed_forward(f"{block}.ff_context", width, text)
    for index in range(single):
        block = f"single_transformer_blocks.{index}"
        layers.add(f"{block}.norm.linear", width, 3 * width, 1)
        layers.attend(f"{block}.attn", _IMAGE[:3], width, tokens)
        layers.add(f"{block}.proj_mlp", width, 4 * width, tokens)
        layers.add(f"{block}.proj_out", 5 * width, width, tokens)
    layers.add("norm_out.linear", width, 2 * width, 1)
    layers.add("proj_out", width, config["patch_size"] ** 2 * out, image)
    attention = [(width, tokens)] * (double + single)
    norms = (4 * double + 2 * single) * head  # of queries and keys
    return Transformer(width, tokens, layers.found, attention, norms, double + single)


def _sd3(config: dict[str, Any], image: int, text: int) -> Transformer:
    """Diffusers `SD3Transformer2DModel`."""
    head, patch, count = (config[key] for key in ("attention_head_dim", "patch_size", "num_layers"))
    width, tokens, layers = config["num_attention_heads"] * head, image + text, _Layers()
    dual = [index for index in config.get("dual_attention_layers") or () if index < count]
    layers.add("pos_embed.proj", config["in_channels"] * patch**2, width, image)
    layers.add(
        "context_embedder", config["joint_attention_dim"], config["caption_projection_dim"], text
    )
    layers.embed("timestep_embedder", TIMESTEP_CHANNELS, width)
    layers.embed("text_embedder", config["pooled_projection_dim"], width)
    for index in range(count):
        block, last = f"transformer_blocks.{index}", index == count - 1
        layers.add(f"{block}.norm1.linear", width, (9 if index in dual else 6) * width, 1)
        layers.attend(f"{block}.attn", _IMAGE, width, image)
        layers.feed_forward(f"{block}.ff", width, image)
        # The last block gives no text out.
        layers.add(f"{block}.norm1_context.linear", width, (2 if last else 6) * width, 1)
        layers.attend(f"{block}.attn", _TEXT[:3] if last else _TEXT, width, text)
        if not last:
            layers.feed_forward(f"{block}.ff_context", width, text)
        if index in dual:  # a second attention, of the image tokens alone
            layers.attend(f"{block}.attn2", _IMAGE, width, image)
    layers.add("norm_out.linear", width, 2 * width, 1)
    layers.add("proj_out", width, patch**2 * config["out_channels"], image)
    attention = [(width, tokens)] * count + [(width, image)] * len(dual)
    norms = (4 * count + 2 * len(dual)) * head if config.get("qk_norm") else 0
    blocks = count + DUAL_SHARE * len(dual)
    return Transformer(width, tokens, layers.found, attention, norms, blocks)


def decoder_flops(config: dict[str, Any], side: int) -> tuple[float, int]:
    """Decoding one image of `side` x `side` pixels (diffusers `AutoencoderKL`).

    Operations, and the decoder's parameters.
    """
    widths = list(reversed(config["block_out_channels"]))
    here = side // 2 ** (len(widths) - 1)
    operations, parameters = 0.0, 0

    def convolve(inputs: int, outputs: int, side: int, kernel: int = 3) -> None:
        nonlocal operations, parameters
        operations += 2 * side**2 * inputs * outputs * kernel**2
        parameters += inputs * outputs * kernel**2 + outputs

    def residual(inputs: int, outputs: int, side: int) -> None:
        nonlocal parameters
        convolve(inputs, outputs, side)
        convolve(outputs, outputs, side)
        parameters += 2 * (inputs + outputs)  # two norms
        if inputs != outputs:
            convolve(inputs, outputs, side, kernel=1)

    top = widths[0]
    convolve(config["latent_channels"], top, here)
    for _ in range(2):  # the middle block, with attention between
        residual(top, top, here)
    if config.get("mid_block_add_attention", True):
        for _ in range(4):
            convolve(top, top, here, kernel=1)
        parameters += 2 * top
        operations += 4 * here**4 * top
    before = top
    for index, width in enumerate(widths):
        for layer in range(config["layers_per_block"] + 1):
            residual(before if layer == 0 else width, width, here)
        before = width
        if index < len(widths) - 1:
            here *= 2
            convolve(width, width, here)
    parameters += 2 * before
    convolve(before, config["out_channels"], here)
    return operations, parameters
