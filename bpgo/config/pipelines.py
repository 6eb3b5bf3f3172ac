"""What a kind of model can do: settings that its policy would refuse are refused before any job.

Where the pipeline's folder is on this machine its small JSON files say more; no weights are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bpgo.config.fields import Task
from bpgo.config.model import ModelSettings
from bpgo.errors import UserError, shown, suggest
from bpgo.storage import hub
from bpgo.storage.files import read_about

# What the names of linear layers of all these transformers end in.
LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"),
    *("proj", "net.2", "linear_1", "linear_2", "proj_out"),
)


@dataclass(frozen=True)
class Kind:
    """What the policy class of a registered kind of model says of itself."""

    pipelines: tuple[str, ...]  # classes of diffusers, any of which will do
    tasks: tuple[Task, ...]
    layers: tuple[str, ...]  # beside `LAYERS`
    two_passes: bool  # whether guidance is a forward pass of its own
    wan: bool = False  # whether it has a negative prompt, and may have two experts


KINDS = {
    "flux": Kind(
        ("FluxPipeline",),
        ("t2i",),
        ("add_q_proj", "to_add_out", "context_embedder", "linear", "proj_mlp", "x_embedder"),
        two_passes=False,
    ),
    "stable_diffusion_3": Kind(
        ("StableDiffusion3Pipeline",),
        ("t2i",),
        ("add_q_proj", "to_add_out", "context_embedder", "linear"),
        two_passes=True,
    ),
    "wan": Kind(
        ("WanPipeline", "WanImageToVideoPipeline"),
        ("t2v", "i2v"),
        ("time_proj",),
        two_passes=True,
        wan=True,
    ),
}


PARTS = ("transformer", "vae", "scheduler")  # of every pipeline


def check_model(model: ModelSettings, file: str) -> None:
    """A model's settings, which `file` holds, fit its kind, and its folder where that is here.

    Raises:
        UserError: naming the key, the value and what is allowed.
    """
    kind = KINDS.get(model.kind)
    if kind is None:  # of a user's own
        return
    if model.task not in kind.tasks:
        _refuse(file, "task", model.task, f"a model of kind '{model.kind}' can do", kind.tasks)
    if model.guidance_gradient != "both" and not kind.two_passes:
        _idle(file, "guidance_gradient", model.guidance_gradient, "guidance is no pass of its own")
    if not kind.wan:
        if model.negative_prompt:
            _idle(file, "negative_prompt", model.negative_prompt, "it has no negative prompt")
        if model.boundary is not None:
            _idle(file, "boundary", model.boundary, "it has no second expert")
        if model.columns != model.resolution:
            _refuse(file, "width", model.width, "images are square: allowed is", [model.resolution])
    for target in model.lora.targets:
        if _end(target) not in (*LAYERS, *kind.layers):
            raise UserError(
                f"{file}: lora.targets: no linear layer of a model of kind '{model.kind}' is named"
                f" {shown(target)}, or ends so.{suggest(target, [*LAYERS, *kind.layers])} Its"
                f" layers end in: {', '.join(sorted([*LAYERS, *kind.layers]))}"
            )
    folder = hub.local_path(model.path)
    if folder is not None:
        _check_folder(model, kind, folder, file)


def _check_folder(model: ModelSettings, kind: Kind, folder: Path, file: str) -> None:
    if not folder.is_dir():
        raise UserError(f"{file}: path: {folder} is a file; a folder is needed")
    found = read_about(folder / "model_index.json").get("_class_name", kind.pipelines[0])
    if found not in kind.pipelines:
        raise UserError(
            f"{file}: kind: '{model.kind}' needs a {' or a '.join(kind.pipelines)}, and"
            f" {folder} (path) holds a {shown(found)}"
        )
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"{file}: path: {folder} is not a {' or a '.join(kind.pipelines)} folder: missing"
            f" {', '.join(missing)}"
        )
    pixels = _token_pixels(model.kind, folder)
    for key, wanted in (("resolution", model.resolution), ("width", model.columns)):
        if pixels and wanted % pixels:
            _refuse(file, key, wanted, "allowed are multiples of", [pixels])


def _token_pixels(kind: str, folder: Path) -> int | None:
    """Pixels along one side of a token, as the policies count them; None where no file says."""
    vae, transformer = (
        read_about(folder / part / "config.json") for part in ("vae", "transformer")
    )
    try:
        if kind == "wan":
            return int(vae["scale_factor_spatial"] * transformer["patch_size"][1])
        rows = 2 if kind == "flux" else transformer["patch_size"]
        return int(2 ** (len(vae["block_out_channels"]) - 1) * rows)
    except (KeyError, TypeError, IndexError, ValueError, OverflowError):
        return None


def _end(name: str) -> str:
    """`to_out.0` of `attn.to_out.0`: from the last word that is no number."""
    words = name.split(".")
    last = max((place for place, word in enumerate(words) if not word.isdigit()), default=0)
    return ".".join(words[last:])


def _refuse(file: str, key: str, value: Any, words: str, allowed: Any) -> NoReturn:
    known = " or ".join(str(each) for each in allowed)
    raise UserError(f"{file}: {key}: {shown(value)} is not allowed: {words} {known}")


def _idle(file: str, key: str, value: Any, why: str) -> NoReturn:
    raise UserError(f"{file}: {key}: {shown(value)} cannot act: {why}; leave it out")
