"""Wan's transformer and codec, layer by layer.

As diffusers' `transformer_wan` and `autoencoder_kl_wan` have them.
"""

from __future__ import annotations

from math import prod
from typing import Any

from bpgo.tools.planning.layers import Layers, Transformer

TEXT_TOKENS = 512  # of the prompt, where image tokens stand before them
CLIP_TOKENS = 257  # of the image encoder of Wan2.1 image to video, ViT-H/14 at 224 x 224
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def wan_tokens(
    transformer: dict[str, Any], vae: dict[str, Any], rows: int, columns: int, frames: int
) -> int:
    """Tokens of a clip."""
    pixels = vae.get("scale_factor_spatial", 8)
    _, patch_rows, patch_columns = transformer["patch_size"]
    along = (rows // pixels // patch_rows) * (columns // pixels // patch_columns)
    return int(along * latent_frames(vae, frames))


def latent_frames(vae: dict[str, Any], frames: int) -> int:
    """Of a clip: the first frame alone, then one for each few (4)."""
    return int((frames - 1) // vae.get("scale_factor_temporal", 4) + 1)


def wan(config: dict[str, Any], image: int, text: int) -> Transformer:
    """`WanTransformer3DModel`."""
    width, hidden = config["num_attention_heads"] * config["attention_head_dim"], config["ffn_dim"]
    count, layers, patch = config["num_layers"], Layers(), prod(config["patch_size"])
    seen = config.get("image_dim")
    clip = CLIP_TOKENS if seen else 0
    steps = image if config.get("expand_timesteps") else 1  # a timestep for each token
    layers.add("patch_embedding", config["in_channels"] * patch, width, image)
    embedder = "condition_embedder"
    layers.add(f"{embedder}.time_embedder.linear_1", config["freq_dim"], width, steps)
    layers.add(f"{embedder}.time_embedder.linear_2", width, width, steps)
    layers.add(f"{embedder}.time_proj", width, 6 * width, steps)
    layers.add(f"{embedder}.text_embedder.linear_1", config["text_dim"], width, text)
    layers.add(f"{embedder}.text_embedder.linear_2", width, width, text)
    if seen:
        layers.add(f"{embedder}.image_embedder.ff.net.0.proj", seen, seen, clip)
        layers.add(f"{embedder}.image_embedder.ff.net.2", seen, width, clip)
    for index in range(count):
        block = f"blocks.{index}"
        layers.attend(f"{block}.attn1", ATTENTION, width, image)
        layers.attend(f"{block}.attn2", ("to_q", "to_out.0"), width, image)
        layers.attend(f"{block}.attn2", ("to_k", "to_v"), width, text)
        if config.get("added_kv_proj_dim"):
            layers.attend(f"{block}.attn2", ("add_k_proj", "add_v_proj"), width, clip)
        layers.add(f"{block}.ffn.net.0.proj", width, hidden, image)
        layers.add(f"{block}.ffn.net.2", hidden, width, image)
    layers.add("proj_out", width, config["out_channels"] * patch, image)
    attention = [(width, image, image), (width, image, text)]
    # Of queries and keys, the affine norm, the table of shifts and scales.
    norms = (4 + 2 * bool(config.get("cross_attn_norm", True)) + 6) * width
    if seen:
        attention.append((width, image, clip))
        norms += width
    image_norms = 2 * (seen + width) if seen else 0
    return Transformer(
        width,
        image + text + clip,
        layers.found,
        attention * count,
        count * norms + 2 * width + image_norms,
        count,
    )


def wan_decoder(config: dict[str, Any], rows: int, columns: int, frames: int) -> tuple[float, int]:
    """Decoding a clip with `AutoencoderKLWan`: operations, and the decoder's parameters.

    Its convolutions are causal and keep what they saw of earlier frames, so each frame is computed
    once. The first latent frame becomes one frame, each other one four.
    """
    counter = _Decoder(config, rows, columns, frames)
    counter.run()
    return counter.operations, counter.parameters


class _Decoder:
    """Walks through the decoder's stages, counting."""

    def __init__(self, config: dict[str, Any], rows: int, columns: int, frames: int) -> None:
        pixels = config.get("scale_factor_spatial", 8)
        self.config = config
        self.later = latent_frames(config, frames) - 1  # latent frames after the first
        self.frames = 1 + self.later
        self.places = (rows // pixels) * (columns // pixels)
        self.operations, self.parameters = 0.0, 0

    def convolve(
        self, inputs: int, outputs: int, kernel: int, frames: int | None = None, held: bool = True
    ) -> None:
        """A convolution of `kernel` weights a pair of channels."""
        count = self.frames if frames is None else frames
        self.operations += 2.0 * count * self.places * inputs * outputs * kernel
        if held:
            self.parameters += inputs * outputs * kernel + outputs

    def residual(self, inputs: int, outputs: int) -> None:
        self.convolve(inputs, outputs, 27)
        self.convolve(outputs, outputs, 27)
        self.parameters += inputs + outputs  # two norms
        if inputs != outputs:
            self.convolve(inputs, outputs, 1)

    def upsample(self, width: int, outputs: int, in_time: bool) -> None:
        """Twice the frames (but the first), then twice the rows and columns."""
        if in_time:
            self.convolve(width, 2 * width, 3, frames=self.frames - 1)
            self.frames = 1 + 2 * (self.frames - 1)
        self.places *= 4
        self.convolve(width, outputs, 9)

    def run(self) -> None:
        config = self.config
        base, count = config.get("decoder_base_dim") or config["base_dim"], config["num_res_blocks"]
        residual = config.get("is_residual", False)
        widths = [base * factor for factor in config["dim_mult"][::-1]]
        in_time = [*config["temperal_downsample"][::-1], False]
        top = widths[0]
        self.convolve(config["z_dim"], config["z_dim"], 1, held=False)  # before the decoder
        self.convolve(config["z_dim"], top, 27)
        self.residual(top, top)
        self.convolve(top, 3 * top, 1)
        self.convolve(top, top, 1)
        self.operations += 4.0 * self.frames * self.places**2 * top  # attention in each frame
        self.parameters += top
        self.residual(top, top)
        before = top
        for index, width in enumerate(widths):
            for layer in range(count + 1):
                self.residual(before if layer == 0 else width, width)
            before = width
            if index < len(widths) - 1:
                before = width if residual else width // 2
                self.upsample(width, before, in_time[index])
        self.parameters += before
        self.convolve(before, config.get("out_channels", 3), 27)
