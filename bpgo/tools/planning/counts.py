"""Operations, parameters and layers of a model's parts. No torch is imported.

A multiplication and an addition count as two operations. Counted are matrix products, convolutions
and attention (`torch.utils.flop_counter`); norms, activations and rotations are not (below 1 %).

`counts.json` holds the counts of the published and the shipped architectures at sizes of 1, 2 and
3. Operations are polynomials of the sizes, of degree 2 at most (attention), so three counts tell
all others exactly. Another architecture is counted when it is asked for
(`bpgo.tools.planning.counting`).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from bpgo.storage.files import read_json
from bpgo.tools.architectures import Architecture

log = logging.getLogger(__name__)

FILE = Path(__file__).with_name("counts.json")
WAN = ("WanPipeline", "WanImageToVideoPipeline")
# The classes of a pipeline's transformer and codec, in diffusers.
CLASSES = {
    "FluxPipeline": ("FluxTransformer2DModel", "AutoencoderKL"),
    "StableDiffusion3Pipeline": ("SD3Transformer2DModel", "AutoencoderKL"),
    **dict.fromkeys(WAN, ("WanTransformer3DModel", "AutoencoderKLWan")),
}
IMAGE_TOKENS = 257  # of the image encoder of Wan2.1 image to video, ViT-H/14 at 224 x 224
DUAL_SHARE = 0.4  # of a block's memory for activations, what a second attention adds


@dataclass(frozen=True)
class Counts:
    """What one sample costs in a model.

    Operations in tables: of a transformer by image tokens (rows) and text tokens (columns), of a
    codec's decoder by latents in a frame and latent frames. A table of one column holds for all.
    `layers` lists an adapter's places: name, inputs and outputs together, first block, last + 1.
    """

    products: list[list[int]]  # with weights
    attention: list[list[int]]  # queries x keys and weights x values
    parameters: int  # of a codec, its decoder's
    layers: list[list[Any]]


@dataclass(frozen=True)
class Transformer:
    """One sample's forward pass; `blocks` counts a second attention as part of one."""

    width: int
    tokens: int  # of image, text and first frame
    blocks: float
    parameters: int
    linear_flops: int
    attention_flops: int
    layers: list[list[Any]]

    @property
    def forward_flops(self) -> int:
        """One forward pass."""
        return self.linear_flops + self.attention_flops

    def training_flops(self, lora: bool) -> int:
        """Forward and backward pass, without what gradient checkpointing computes again.

        Backward is a product for the inputs' gradients and, for trained weights, one for theirs:
        an adapter (LoRA) leaves the second out. Both operands of attention get a gradient.
        """
        return (
            self.forward_flops + (1 if lora else 2) * self.linear_flops + 2 * self.attention_flops
        )

    def lora_parameters(self, rank: int, targets: list[str]) -> int:
        """Parameters of an adapter on the layers that `targets` name (whole, or the last parts)."""
        ends = tuple(f".{target}" for target in targets)
        return rank * sum(
            values
            for name, values, first, stop in self.layers
            for block in range(first, stop)
            if f".{name.format(block)}".endswith(ends)
        )


def latent_shape(vae: dict[str, Any], rows: int, columns: int, frames: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the latents of an image or clip in pixels.

    Of a clip the first frame stands alone, then one latent frame for each few (4).
    """
    # Of images, each block of the codec but the last halves the sides.
    blocks = len(vae.get("block_out_channels", ()))
    pixels = 2 ** (blocks - 1) if blocks else vae.get("scale_factor_spatial", 8)
    later = (frames - 1) // vae.get("scale_factor_temporal", 4)
    return 1 + later, rows // pixels, columns // pixels


def transformer(found: Architecture, latents: tuple[int, int, int], text: int) -> Transformer:
    """What one sample costs in a transformer.

    Args:
        found: of a pipeline in `CLASSES`.
        latents: from `latent_shape`.
        text: text tokens (of Stable Diffusion 3: CLIP's 77 and T5's together).

    Raises:
        KeyError: for another pipeline.
    """
    (name, config), _ = parts(found)
    counts, layers = counts_of(name, config), config["num_layers"]
    patch = config["patch_size"][-1] if found.pipeline in WAN else config["patch_size"]
    if found.pipeline == "FluxPipeline":  # it packs 2 x 2 latents itself
        patch = 2
    frames, rows, columns = latents
    image = frames * (rows // patch) * (columns // patch)
    dual = sum(block < layers for block in config.get("dual_attention_layers") or ())
    return Transformer(
        width=config["num_attention_heads"] * config["attention_head_dim"],
        tokens=image + text + (IMAGE_TOKENS if config.get("image_dim") else 0),
        blocks=layers + config.get("num_single_layers", 0) + DUAL_SHARE * dual,
        parameters=counts.parameters,
        linear_flops=_at(counts.products, image, text),
        attention_flops=_at(counts.attention, image, text),
        layers=counts.layers,
    )


def decoder(found: Architecture, latents: tuple[int, int, int]) -> tuple[int, int]:
    """Decoding one image or clip: operations, and the decoder's parameters."""
    counts, (frames, rows, columns) = counts_of(*parts(found)[1]), latents
    tables = counts.products, counts.attention
    return sum(_at(table, rows * columns, frames) for table in tables), counts.parameters


def parts(found: Architecture) -> tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]:
    """Class and configuration of the transformer and of the codec; `KeyError` as above."""
    transformer, codec = CLASSES[found.pipeline]
    expand = {"expand_timesteps": bool(found.index.get("expand_timesteps"))}
    return (transformer, found.transformer | expand), (codec, found.vae)


def counts_of(name: str, config: dict[str, Any]) -> Counts:
    """The counts of a diffusers class with this configuration; counted now if none are stored."""
    return _found(name, config) or _counted_now(name, json.dumps(config))


def are_stored(found: Architecture) -> bool:
    """Whether the counts of both parts are stored: to count them takes torch and a minute."""
    return found.pipeline in CLASSES and all(_found(*part) for part in parts(found))


def own_values(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The values that set a model's cost apart from its class's defaults."""
    return {key: config[key] for key in defaults if config.get(key, defaults[key]) != defaults[key]}


def _found(name: str, config: dict[str, Any]) -> Counts | None:
    stored = _stored()
    own = own_values(config, stored["defaults"][name])
    for entry in stored["counts"]:
        if entry["class"] == name and entry["config"] == own:
            return Counts(**entry["counts"])
    return None


@cache
def _stored() -> Any:
    return read_json(FILE)


@cache
def _counted_now(name: str, config: str) -> Counts:
    log.warning(f"{name}: not one of the shapes in {FILE.name}: counting it now, with torch")
    from bpgo.tools.planning.counting import count

    return count(name, json.loads(config))


def _at(table: list[list[int]], row: int, column: int) -> int:
    """A table's value at any size: the polynomial through its values at 1, 2, ..."""
    return _between([_between(values, column) for values in table], row)


def _between(values: list[int], size: int) -> int:
    """Newton's forward formula, exact in whole numbers."""
    found, factor = 0, 1
    for order in range(len(values)):
        found += factor * values[0]
        factor = factor * (size - 1 - order) // (order + 1)
        values = [after - before for before, after in pairwise(values)]
    return found
