"""Find a diffusers pipeline and load its parts, with one clear message where that fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from bpgo import hub
from bpgo.errors import UserError
from bpgo.files import read_json
from bpgo.scenes.weights import verify
from bpgo.settings import ModelSettings

MODELS = ("transformer", "vae")
# Of a hub repository: no weights of other formats, precisions or uses.
WEIGHT_FILES = ("{part}/*.json", "{part}/{stem}.safetensors", "{part}/{stem}-*-of-*.safetensors")


def find_pipeline(
    settings: ModelSettings, pipeline: str, encoders: Sequence[str], optional: str | None = None
) -> Path:
    """The folder of a pipeline: a local one, or fetched from the hub.

    Args:
        settings: `path` and `revision` say where it is.
        pipeline: its class in diffusers, such as `FluxPipeline`.
        encoders: its text encoders; each has a tokenizer.
        optional: an encoder that `model_index.json` may say is absent.

    Raises:
        UserError: if it is missing, gated, another pipeline, or a part is missing.
    """
    what = f"model '{settings.title}'"
    folder = hub.folder(settings.path, settings.revision, what, _patterns(encoders))
    index = read_index(folder)
    found = index.get("_class_name", pipeline)
    if found != pipeline:
        raise UserError(
            f"{what}: {folder} holds a {found}; the model kind '{settings.kind}' needs a {pipeline}"
        )
    needed = [*MODELS, "scheduler"]
    for encoder in encoders:
        if encoder != optional or has_part(folder, encoder):
            needed += [encoder, tokenizer_of(encoder)]
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


def has_part(folder: Path, part: str) -> bool:
    """Whether the pipeline has a part: its index may say `[null, null]` of one."""
    return read_index(folder).get(part, [part])[0] is not None


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
        UserError: if it is of another class, broken, or a shard or a tensor is missing.
    """
    chosen = _class(kind)
    try:
        _check_class(folder / part / "config.json", chosen.__name__)
        model, report = chosen.from_pretrained(
            folder,
            subfolder=part,
            local_files_only=True,
            torch_dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_loaded(folder / part, chosen, str(error)) from None
    if report["missing_keys"]:  # the libraries only warn, and go on with random weights or none
        missing = sorted(report["missing_keys"])
        reason = f"{len(missing)} tensors are missing, such as {missing[0]}"
        raise _not_loaded(folder / part, chosen, reason)
    return model.eval()


def load_scheduler(folder: Path) -> Any:
    """The pipeline's scheduler; `UserError` if it is not the flow-matching Euler one."""
    # The submodule, as in `load_model`.
    chosen = _class(
        "diffusers.schedulers.scheduling_flow_match_euler_discrete:FlowMatchEulerDiscreteScheduler"
    )
    try:
        _check_class(folder / "scheduler" / "scheduler_config.json", chosen.__name__)
        return chosen.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    except (OSError, ValueError) as error:
        raise _not_loaded(folder / "scheduler", chosen, str(error)) from None


def _patterns(encoders: Sequence[str]) -> list[str]:
    stems = dict.fromkeys(MODELS, "diffusion_pytorch_model") | dict.fromkeys(encoders, "model")
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


def _check_class(config: Path, wanted: str) -> None:
    """`ValueError` if a configuration names another class; without a name the loader decides."""
    if not config.is_file():
        return
    found = json.loads(config.read_text(encoding="utf-8")).get("_class_name", wanted)
    if found != wanted:
        raise ValueError(f"it holds a {found}")


def _not_loaded(place: Path, kind: Any, reason: str) -> UserError:
    return UserError(f"{place}: cannot be loaded as {kind.__name__}: {' '.join(reason.split())}")
