"""Floating point operations and parameters of a forward pass, from a model's configuration.

A multiplication and an addition count as two operations. Counted are matrix products, convolutions
and attention, as `torch.utils.flop_counter` does; norms, activations and rotations are not (below
1 %). Tests compare with that counter and with the models' own parameters.

Letters: d width, L tokens (image and text), B = 1 sample.
"""

from __future__ import annotations

from typing import Any

from bpgo.tools.planning.flops_wan import wan, wan_decoder, wan_tokens
from bpgo.tools.planning.layers import Layers, Transformer

WAN = ("WanPipeline", "WanImageToVideoPipeline")
TIMESTEP_CHANNELS = 256  # of the sinusoidal embedding, in FLUX and Stable Diffusion 3
DUAL_SHARE = 0.4  # of a block's memory for activations, what a second attention adds


def image_tokens(
    pipeline: str,
    transformer: dict[str, Any],
    vae: dict[str, Any],
    rows: int,
    columns: int,
    frames: int = 1,
) -> int:
    """Tokens of an image, or of a clip, of `rows` x `columns` pixels."""
    if pipeline in WAN:
        return wan_tokens(transformer, vae, rows, columns, frames)
    pixels = 2 ** (len(vae["block_out_channels"]) - 1)  # one latent along each side
    patch = 2 if pipeline == "FluxPipeline" else transformer["patch_size"]  # FLUX packs 2 x 2
    return (rows // pixels // patch) * (columns // pixels // patch)


def transformer(pipeline: str, config: dict[str, Any], image: int, text: int) -> Transformer:
    """A transformer's layers and what they cost.

    Args:
        pipeline: `FluxPipeline`, `StableDiffusion3Pipeline` or one of `WAN`.
        config: the transformer's `config.json`; of Wan also the index's `expand_timesteps`.
        image: tokens of the image or clip.
        text: text tokens (of Stable Diffusion 3: CLIP's 77 and T5's together).

    Raises:
        KeyError: for another pipeline.
    """
    kinds = {"FluxPipeline": _flux, "StableDiffusion3Pipeline": _sd3, **dict.fromkeys(WAN, wan)}
    return kinds[pipeline](config, image, text)


_IMAGE = ("to_q", "to_k", "to_v", "to_out.0")
_TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def _flux(config: dict[str, Any], image: int, text: int) -> Transformer:
    """Diffusers `FluxTransformer2DModel`."""
    head, double, single = (
        config[key] for key in ("attention_head_dim", "num_layers", "num_single_layers")
    )
    width, tokens, layers = config["num_attention_heads"] * head, image + text, Layers()
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
    attention = [(width, tokens, tokens)] * (double + single)
    norms = (4 * double + 2 * single) * head  # of queries and keys
    return Transformer(width, tokens, layers.found, attention, norms, double + single)


def _sd3(config: dict[str, Any], image: int, text: int) -> Transformer:
    """Diffusers `SD3Transformer2DModel`."""
    head, patch, count = (config[key] for key in ("attention_head_dim", "patch_size", "num_layers"))
    width, tokens, layers = config["num_attention_heads"] * head, image + text, Layers()
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
    attention = [(width, tokens, tokens)] * count + [(width, image, image)] * len(dual)
    norms = (4 * count + 2 * len(dual)) * head if config.get("qk_norm") else 0
    blocks = count + DUAL_SHARE * len(dual)
    return Transformer(width, tokens, layers.found, attention, norms, blocks)


def decoder_flops(
    config: dict[str, Any], rows: int, columns: int, frames: int = 1
) -> tuple[float, int]:
    """Decoding one image or clip: operations, and the decoder's parameters."""
    if "z_dim" in config:  # diffusers `AutoencoderKLWan`
        return wan_decoder(config, rows, columns, frames)
    return _image_decoder(config, rows)


def _image_decoder(config: dict[str, Any], side: int) -> tuple[float, int]:
    """Of one image of `side` x `side` pixels (diffusers `AutoencoderKL`)."""
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
