"""Count what `counts.json` holds: diffusers' models on the `meta` device (shapes, no memory).

`python -m bpgo.tools.planning.counting` writes the file again, in a few minutes: after another
diffusers, another published architecture, or other shipped weights.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import chain
from typing import Any

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

from bpgo.storage.files import repository_root, write_text
from bpgo.tools.architectures import PUBLISHED, read_folder
from bpgo.tools.planning.counts import FILE, IMAGE_TOKENS, Counts, own_values, parts

SIZES = (1, 2, 3)
TEXT_TOKENS = 512  # of the prompt, where image tokens stand before them
PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.convolution)
# What changes no cost: positions, and the scale of the latents.
FREE = {"axes_dims_rope", "pos_embed_max_size", "rope_max_seq_len", "sample_size", "force_upcast"}
FREE |= {"scaling_factor", "shift_factor", "latents_mean", "latents_std"}


def count(name: str, config: dict[str, Any]) -> Counts:
    """Build a diffusers class and count it; `config` may hold keys that the class does not know.

    Raises:
        TypeError, ValueError, RuntimeError: as the class does, for values that it refuses.
    """
    given = {key: config[key] for key in _defaults(name) if key in config}
    with torch.device("meta"):
        model = getattr(diffusers, name)(**given).eval()
    columns: tuple[int, ...] = SIZES
    if name.startswith("Autoencoder"):
        run, weights, layers = partial(_decode, model), model.decoder, []
        columns = SIZES[:2] if "z_dim" in model.config else SIZES[:1]
    else:
        run, weights, layers = partial(_forward, model, config), model, _layers(model)
        columns = (TEXT_TOKENS,) if config.get("image_dim") else SIZES
    table = [[_operations(run, row, column) for column in columns] for row in SIZES]
    products, attention = ([[pair[kind] for pair in row] for row in table] for kind in (0, 1))
    parameters = sum(parameter.numel() for parameter in weights.parameters())
    return Counts(products, attention, parameters, layers)


def everything() -> dict[str, Any]:
    """What `counts.json` holds: of each class the defaults, of each architecture the counts."""
    weights = (repository_root() / "bpgo" / "scenes" / "weights").rglob("model_index.json")
    shipped = [read_folder(index.parent, bytes_each=4) for index in sorted(weights)]
    defaults: dict[str, dict[str, Any]] = {}
    counted: dict[str, dict[str, Any]] = {}
    for name, config in chain.from_iterable(map(parts, [*PUBLISHED.values(), *shipped])):
        values = {"expand_timesteps": False} | _defaults(name)
        defaults[name] = {key: value for key, value in values.items() if key not in FREE}
        own = own_values(config, defaults[name])
        if (key := json.dumps([name, own])) not in counted:
            counts = asdict(count(name, config))
            counted[key] = {"class": name, "config": own, "counts": counts}
    return {"defaults": defaults, "counts": list(counted.values())}


def _defaults(name: str) -> dict[str, Any]:
    """What a class's arguments are unless they are given, as a JSON file has them."""
    signature = inspect.signature(getattr(diffusers, name).__init__)
    values = {key: each.default for key, each in signature.parameters.items() if key != "self"}
    found: dict[str, Any] = json.loads(json.dumps(values))
    return found


def _operations(run: Callable[[int, int], Any], row: int, column: int) -> tuple[int, int]:
    """Products with weights, and the rest, which is attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        run(row, column)
    found = counter.get_flop_counts()["Global"]
    products = sum(found.get(operation, 0) for operation in PRODUCTS)
    return products, counter.get_total_flops() - products


def _decode(model: Any, places: int, frames: int) -> None:
    """One sample, `places` latents in a row."""
    config = model.config
    if "z_dim" in config:
        model.decode(torch.empty(1, config.z_dim, frames, 1, places))
    else:
        model.decode(torch.empty(1, config.latent_channels, 1, places))


def _forward(model: Any, given: dict[str, Any], image: int, text: int) -> None:
    """One sample, `image` tokens in a row."""
    config, shapes = model.config, dict[str, tuple[int, ...]]()
    channels, width = config.in_channels, config.get("text_dim") or config.joint_attention_dim
    shapes["encoder_hidden_states"] = (1, text, width)
    shapes["timestep"] = (1, image) if given.get("expand_timesteps") else (1,)
    if "text_dim" in config:  # Wan
        frames, rows, columns = config.patch_size
        shapes["hidden_states"] = (1, channels, frames, rows, columns * image)
        if config.image_dim:
            shapes["encoder_hidden_states_image"] = (1, IMAGE_TOKENS, config.image_dim)
    else:
        shapes["pooled_projections"] = (1, config.pooled_projection_dim)
        if "axes_dims_rope" in config:  # FLUX
            shapes["hidden_states"] = (1, image, channels)
            shapes |= {"img_ids": (image, 3), "txt_ids": (text, 3)}
            shapes |= {"guidance": (1,)} if config.guidance_embeds else {}
        else:
            shapes["hidden_states"] = (1, channels, config.patch_size, config.patch_size * image)
    model(**{name: torch.empty(shape) for name, shape in shapes.items()})


def _layers(model: Any) -> list[list[Any]]:
    """`Counts.layers`: equal layers of blocks that follow each other are one entry."""
    found: dict[Any, list[Any]] = {}
    for path, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Conv3d):
            continue
        number = re.search(r"\.(\d+)\.", path)  # a block's
        block = int(number[1]) if number else 0
        name = re.sub(r"\.\d+\.", ".{}.", path, count=1)
        values = module.weight[0].numel() + len(module.weight)
        before = found.pop((name, values, block), [name, values, block])  # up to the block before
        found[name, values, block + 1] = [*before[:3], block + 1]
    return list(found.values())


if __name__ == "__main__":
    # A line for each architecture.
    write_text(FILE, json.dumps(everything()).replace('{"class"', '\n{"class"') + "\n")
