"""Find a diffusers pipeline and load its parts, with one clear message where that fails."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bpgo.config.model import ModelSettings
from bpgo.errors import UserError, reading
from bpgo.models.config_types import check_types
from bpgo.storage import hub
from bpgo.storage.digests import verify
from bpgo.storage.files import read_json

MODELS = ("transformer", "vae")
EULER = "diffusers.schedulers.scheduling_flow_match_euler_discrete:FlowMatchEulerDiscreteScheduler"
# Of a hub repository: no weights of other formats, precisions or uses.
WEIGHT_FILES = ("{part}/*.json", "{part}/{stem}.safetensors", "{part}/{stem}-*-of-*.safetensors")


def find_pipeline(
    settings: ModelSettings,
    pipelines: Sequence[str],
    encoders: Sequence[str],
    optional: str | None = None,
    extras: Sequence[str] = (),
) -> Path:
    """The folder of a pipeline: a local one, or fetched from the hub.

    Args:
        settings: `path` and `revision` say where it is.
        pipelines: its class in diffusers, such as `FluxPipeline`; several where any will do.
        encoders: its text encoders; each has a tokenizer.
        optional: an encoder that `model_index.json` may say is absent.
        extras: parts that are needed where `model_index.json` names them.

    Raises:
        UserError: if it is missing, gated, another pipeline, or a part is missing.
    """
    what = f"model '{settings.title}'"
    folder = hub.folder(settings.path, settings.revision, what, _patterns(encoders, extras))
    index, pipeline = read_index(folder), " or a ".join(pipelines)
    found = index.get("_class_name", pipelines[0])
    if found not in pipelines:
        raise UserError(
            f"{what}: {folder} holds a {found}; the model kind '{settings.kind}' needs a {pipeline}"
        )
    needed = [*MODELS, "scheduler"]
    for encoder in encoders:
        if encoder != optional or has_part(folder, encoder):
            needed += [encoder, tokenizer_of(encoder)]
    needed += [part for part in extras if names_part(index, part)]
    missing = [part for part in needed if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"{what}: {folder} is not a {pipeline} folder: missing {', '.join(missing)}"
        )
    verify(folder)  # shipped weights have digests
    return folder


def read_index(folder: Path) -> dict[str, Any]:
    """The pipeline's `model_index.json`; empty where there is none."""
    try:
        found = read_json(folder / "model_index.json")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'model_index.json'}: cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}


def read_config(folder: Path, part: str, *needs: str) -> dict[str, Any]:
    """A part's `config.json`; `UserError` if it cannot be read, or lacks a key that it `needs`."""
    try:
        found: dict[str, Any] = read_json(folder / part / "config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / part / 'config.json'}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{folder / part / 'config.json'}: is no JSON object")
    if missing := [key for key in needs if key not in found]:
        raise UserError(f"{folder / part / 'config.json'}: has no '{missing[0]}'")
    return found


def has_part(folder: Path, part: str) -> bool:
    """Whether the pipeline has a part: its index may say `[null, null]` of one."""
    return names_part({part: [part], **read_index(folder)}, part)


def names_part(index: dict[str, Any], part: str) -> bool:
    """Whether a pipeline's index names a part that older pipelines of its class do not know."""
    found = index.get(part)
    return isinstance(found, list) and found[:1] not in ([], [None])


def tokenizer_of(encoder: str) -> str:
    """`tokenizer_2` for `text_encoder_2`."""
    return encoder.replace("text_encoder", "tokenizer")


def load_model(kind: str, folder: Path, part: str, dtype: torch.dtype) -> Any:
    """One model of the pipeline, on the host, in evaluation mode, all its weights read.

    Args:
        kind: `module:class`. A submodule loads faster than `diffusers` itself, which imports every
            model there is.
        folder: the pipeline's.
        part: such as `transformer`.
        dtype: of its weights.

    Raises:
        UserError: if it is of another class, broken, or a shard or a tensor is missing or too much.
    """
    chosen = _class(kind)
    with reading(f"{folder / part}: cannot be loaded as {chosen.__name__}"):
        _check_config(folder / part / "config.json", chosen)
        model, report = chosen.from_pretrained(
            folder,
            subfolder=part,
            local_files_only=True,
            torch_dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
        # The libraries only warn, and go on with random weights or none.
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"{len(missing)} tensors are missing, such as {missing[0]}")
        # Encoders of other uses hold more than is asked of them; a part of diffusers does not.
        if kind.startswith("diffusers.") and (more := sorted(report["unexpected_keys"])):
            raise ValueError(
                f"it has no place for {len(more)} tensors of its weights, such as {more[0]}"
            )
    return model.eval()


def without_weights(kind: str, folder: Path, part: str) -> Any:
    """Only the `config` of one model of the pipeline, with its class's defaults.

    Takes a hundredth of the time of `load_model`, and no memory.

    Raises:
        UserError: if it is of another class, or cannot be read.
    """
    from diffusers.configuration_utils import FrozenDict

    chosen = _class(kind)
    config = read_config(folder, part)
    with reading(f"{folder / part}: cannot be loaded as {chosen.__name__}"):
        _check_config(folder / part / "config.json", chosen)
    arguments = signature(chosen.__init__).parameters.values()
    defaults = {each.name: each.default for each in arguments if each.default is not each.empty}
    return SimpleNamespace(config=FrozenDict(defaults | config))


def load_scheduler(folder: Path, kinds: Sequence[str] = (EULER,)) -> Any:
    """The pipeline's scheduler; `UserError` if it is none of `kinds` (`module:class`)."""
    config = folder / "scheduler" / "scheduler_config.json"
    names = [kind.split(":")[1] for kind in kinds]
    with reading(f"{config.parent}: cannot be loaded as {' or '.join(names)}"):
        found = _about(config).get("_class_name") or names[0]
        if found not in names:
            raise ValueError(f"it holds a {found}")
        chosen = _class(kinds[names.index(found)])  # the submodule, as in `load_model`
        _check_config(config, chosen)
        scheduler = chosen.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    if not scheduler.config.get("use_flow_sigmas", True):  # UniPC has others too
        raise UserError(
            f"{config.parent}: its noise levels are not those of a flow: use_flow_sigmas is false"
        )
    return scheduler


def _patterns(encoders: Sequence[str], extras: Sequence[str]) -> list[str]:
    models = [*MODELS, *(part for part in extras if part.startswith("transformer"))]
    others = [*encoders, *(part for part in extras if part not in models)]
    stems = dict.fromkeys(models, "diffusion_pytorch_model") | dict.fromkeys(others, "model")
    return [
        "model_index.json",
        "scheduler/*.json",
        *(
            pattern.format(part=part, stem=stem)
            for part, stem in stems.items()
            for pattern in WEIGHT_FILES
        ),
        *(f"{tokenizer_of(encoder)}/*" for encoder in encoders),
    ]


def _class(kind: str) -> Any:
    module, name = kind.split(":")
    return getattr(import_module(module), name)


def _check_config(config: Path, chosen: Any) -> None:
    """`ValueError` if a configuration is another class's; without a name the loader decides."""
    values = _about(config)
    if (found := values.get("_class_name") or chosen.__name__) != chosen.__name__:
        raise ValueError(f"it holds a {found}")
    check_types(values, chosen)


def _about(config: Path) -> dict[str, Any]:
    """A part's configuration; empty where there is none."""
    if not config.is_file():
        return {}
    found = read_json(config)
    if not isinstance(found, dict):
        raise ValueError("its configuration is no JSON object")
    return found
