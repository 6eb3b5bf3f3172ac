"""Policies that were trained elsewhere: their files are safetensors and fit the model.

Only headers are read, so this needs no torch; and digests, by which a file that is exchanged later
is found. Where this machine does not have the whole model yet, shapes are compared when the policy
is sampled.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from bpgo.config.given import GIVEN, GivenPolicy
from bpgo.config.library import mapping, named, optional
from bpgo.config.model import LoraSettings, ModelSettings
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.errors import UserError, shown
from bpgo.storage import hub
from bpgo.storage.files import sha256
from bpgo.storage.headers import Header, read_header

LORA_FILE = "pytorch_lora_weights.safetensors"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
FIRST, EXPERT = "transformer", "transformer_2"  # the second one where there are two experts
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
NOTES = "lora_adapter_metadata"
PREFIX = "transformer."
FOUND = ("files", "adapter")  # keys that are never given, but found
# What changes how an adapter's numbers are used, and what a plain one has.
PLAIN = {"alpha_pattern": {}, "rank_pattern": {}, "use_dora": False, "use_rslora": False}

Shapes = dict[str, tuple[int, ...]]


def checked(values: Any, file: str) -> dict[str, Any]:
    """The policies as a configuration gives them: nothing of what their files say."""
    policies = named(optional(values, "policies", file), "policies", file)
    for name, entry in policies.items():
        for own in FOUND:
            if own in mapping(entry, f"policies.{name}", file):
                raise UserError(
                    f"{file}: policies.{name}.{own}: is read from the policy's files; leave it out"
                )
    return policies


def with_policies(settings: Settings, arms: Collection[str], file: str) -> Settings:
    """Settings whose given policies say what their files hold.

    `arms` are those that have a file.

    Raises:
        UserError: naming the key, the file and what is wrong: a name that an arm or a reward has, a
            file that is missing or no safetensors file, a LoRA or weights of another model.
    """
    if settings.policies and GIVEN in settings.experiments:
        raise UserError(
            f"{file}: experiments: '{GIVEN}' is the folder of policies; name it otherwise"
        )
    taken = {"an arm": {BASE_ARM, *settings.arms, *arms}, "a reward": {*settings.rewards}}
    found = {}
    for name, policy in settings.policies.items():
        key = f"{file}: policies.{name}"
        for what, names in taken.items():
            if name in names:
                raise UserError(f"{key}: {what} has this name; give the policy another")
        try:
            found[name] = _read(policy, settings.model)
        except UserError as error:
            raise UserError(f"{key}.{'lora' if policy.lora else 'weights'}: {error}") from None
    return settings.model_copy(update={"policies": found})


def folder_of(policy: GivenPolicy) -> Path:
    """Where its files lie: a folder, or the one file of a LoRA.

    Raises:
        UserError: there is nothing there.
    """
    path = hub.local_path(policy.place)
    if path is None:
        raise UserError(
            f"'{policy.place}' does not exist (paths are absolute, or relative to the clone's root;"
            " files of the hub are fetched before: `hf download`)"
        )
    return path


def files_of(policy: GivenPolicy) -> dict[Path, str]:
    """Its files where they lie now, each with the digest that it had."""
    path = folder_of(policy)
    root = path if path.is_dir() else path.parent
    return {root / name: digest for name, digest in policy.files.items()}


def _read(policy: GivenPolicy, model: ModelSettings) -> GivenPolicy:
    path = folder_of(policy)
    first, second = (_model_shapes(model, part) for part in (FIRST, EXPERT))
    adapter = None
    if policy.lora:
        files = _lora_files(path)
        if first is not None and len(files) != (2 if second else 1):
            raise UserError(
                f"{path}: is for {_experts(len(files))}, and '{model.title}' has"
                f" {_experts(2 if second else 1)}"
            )
        adapters = [
            _adapter(file, own, model) for file, own in zip(files, (first, second), strict=False)
        ]
        adapter = adapters[0]
        if any(each != adapter for each in adapters):
            raise UserError(f"{path}: the adapters of both experts differ in rank, alpha or layers")
    elif second is not None:
        raise UserError(f"{path}: of a model with two experts only a LoRA can be given")
    else:
        files = weight_files(path, FIRST)
        _check_weights(path, _shapes_of(files), first, model)
    root = path if path.is_dir() else path.parent
    digests = {file.relative_to(root).as_posix(): _digest(file) for file in files}
    return policy.model_copy(update={"files": digests, "adapter": adapter})


def _digest(file: Path) -> str:
    """Of large weights that a call reads twice (at both scales), once."""
    status = file.stat()
    return _digest_once(file, status.st_size, status.st_mtime_ns)


@cache
def _digest_once(file: Path, _size: int, _changed: int) -> str:
    return sha256(file)


def _lora_files(path: Path) -> list[Path]:
    """The file; of two experts both."""
    if path.is_file():
        return [path]
    if not (path / LORA_FILE).is_file():
        raise UserError(f"{path}: holds no {LORA_FILE}; name that file, or the folder that has it")
    return [file for file in (path / LORA_FILE, path / EXPERT / LORA_FILE) if file.is_file()]


def weight_files(path: Path, part: str) -> list[Path]:
    """All files of the weights of a part of a pipeline's folder.

    Raises:
        UserError: one is missing, or the index of several cannot be used.
    """
    folder = path / part
    index = folder / f"{WEIGHTS_FILE}.index.json"
    names = [WEIGHTS_FILE]
    if index.is_file():
        try:
            names = sorted(set(map(str, json.loads(index.read_text())["weight_map"].values())))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            names = []
        if not names:
            raise UserError(f"{index}: does not say which files there are")
        if any(Path(name).name != name for name in names):
            raise UserError(f"{index}: names a file outside of its folder")
    for name in names:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: no such file: name a folder with all weights in {part}/, as"
                " diffusers saves them"
            )
    return [folder / name for name in names]


def _shapes_of(files: list[Path]) -> Shapes:
    return {name: shape for file in files for name, shape in read_header(file).shapes.items()}


def _model_shapes(model: ModelSettings, part: str) -> Shapes | None:
    """Shapes of the model's own weights; None where this machine has not all of them."""
    path = hub.present(model.path, model.revision)
    try:
        return None if path is None else _shapes_of(weight_files(path, part))
    except UserError:
        return None


def _adapter(file: Path, own: Shapes | None, model: ModelSettings) -> LoraSettings:
    """Rank, alpha and layers of a LoRA for weights of the shapes `own`, where these are known.

    Where its file has no alpha, that is the rank, as diffusers takes it.
    """
    header = read_header(file)
    matrices = _matrices(file, header)
    ranks = {down[0] for down, _ in matrices.values()}
    if len(ranks) > 1:
        listed = ", ".join(map(str, sorted(ranks)))
        raise UserError(f"{file}: has layers of several ranks ({listed}); one is needed")
    notes = _notes(file, header)
    try:
        alpha = float(notes.get("lora_alpha", min(ranks)))
        adapter = LoraSettings(rank=min(ranks), alpha=alpha, targets=list(matrices))
    except (ValueError, TypeError):
        raise UserError(
            f"{file}: a rank of {min(ranks)} with lora_alpha {shown(notes.get('lora_alpha'))} is no"
            " LoRA: both are above 0"
        ) from None
    for layer, (down, up) in matrices.items() if own is not None else ():
        wanted = own.get(f"{layer}.weight")  # type: ignore[union-attr]
        if wanted is None:
            raise UserError(f"{file}: is a LoRA of another model: '{model.title}' has no '{layer}'")
        if (up[0], down[1]) != wanted:
            raise UserError(
                f"{file}: is a LoRA of another model: its '{layer}' is for weights of"
                f" {_by(up[0], down[1])}, and that of '{model.title}' has {_by(*wanted)}"
            )
    return adapter


def _matrices(file: Path, header: Header) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Of each adapted layer the shapes of both matrices, [rank, inputs] and [outputs, rank]."""
    shapes = {name.removeprefix(PREFIX): shape for name, shape in header.shapes.items()}
    layers = sorted({name.removesuffix(DOWN) for name in shapes if name.endswith(DOWN)})
    expected = {f"{layer}{side}" for layer in layers for side in (DOWN, UP)}
    if not layers or shapes.keys() != expected:
        odd = min(shapes.keys() ^ expected, default="nothing")
        raise UserError(
            f"{file}: is no LoRA of a transformer as diffusers saves it: it has or lacks '{odd}'."
            " Load it into its pipeline and save it with save_lora_weights, without text encoders"
        )
    found = {layer: (shapes[f"{layer}{DOWN}"], shapes[f"{layer}{UP}"]) for layer in layers}
    for layer, (down, up) in found.items():
        if len(down) != 2 or len(up) != 2 or down[0] != up[1]:
            raise UserError(
                f"{file}: '{layer}' has matrices of {_by(*down)} and {_by(*up)}; a LoRA of a linear"
                " layer is needed"
            )
    return found


def _notes(file: Path, header: Header) -> dict[str, Any]:
    """What the file says of its adapter, which must be a plain one."""
    try:
        notes = json.loads(header.notes.get(NOTES, "{}"))
        notes = {key.removeprefix(PREFIX): value for key, value in notes.items()}
    except (ValueError, AttributeError, RecursionError):
        raise UserError(f"{file}: its {NOTES} cannot be read") from None
    for key, plain in PLAIN.items():
        if notes.get(key, plain) != plain:
            raise UserError(f"{file}: {key} is {shown(notes[key])}; a plain LoRA is needed")
    return notes


def _check_weights(path: Path, shapes: Shapes, own: Shapes | None, model: ModelSettings) -> None:
    if own is None:
        return
    other = f"{path}: are weights of another model than '{model.title}'"
    odd = min(shapes.keys() ^ own.keys(), default=None)
    if odd is not None:
        raise UserError(f"{other}: it {'has' if odd in shapes else 'lacks'} '{odd}'")
    for name, wanted in own.items():
        if shapes[name] != wanted:
            raise UserError(
                f"{other}: '{name}' has {_by(*shapes[name])} numbers, and {_by(*wanted)} are needed"
            )


def _experts(count: int) -> str:
    return "one transformer" if count == 1 else "two experts"


def _by(*sizes: int) -> str:
    return " x ".join(map(str, sizes))
