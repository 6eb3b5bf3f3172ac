"""The files of others that a configuration needs: weights and prompts, found or missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bpgo.config.published import Published
from bpgo.config.published_files import places
from bpgo.config.settings import Settings
from bpgo.storage import hub
from bpgo.storage.files import read_json


@dataclass(frozen=True)
class PublishedFile:
    """One file or folder."""

    what: str  # `model 'FLUX.1-dev'`
    path: str
    found: Path | None
    missing_parts: tuple[str, ...]  # of a folder that is there in part
    gigabytes: float  # what fetching it takes; 0 where its size is counted elsewhere
    licence: str
    gated: bool

    @property
    def whole(self) -> bool:
        return self.found is not None and not self.missing_parts


def published_files(settings: Settings) -> list[PublishedFile]:
    """All files of others that a configuration names, each once."""
    files: dict[str, PublishedFile] = {}
    for what, entry in _entries(settings):
        for index, (_, path, revision) in enumerate(places(entry)):
            if path not in files:
                files[path] = _look(what, entry, path, revision, first=index == 0)
    return list(files.values())


def _entries(settings: Settings) -> Iterator[tuple[str, Published]]:
    yield f"model '{settings.model.title}'", settings.model
    for reward in settings.rewards.values():
        yield f"reward '{reward.title}'", reward
    if settings.features is not None:
        yield f"features '{settings.features.title}'", settings.features
    for arm in settings.arms.values():
        own = getattr(arm, "features", None)
        if own is not None:
            yield f"features '{own.title}'", own
    for name, prompts in _inside(settings.prompts):
        yield f"prompts '{name}'", prompts


def _inside(value: Any, name: str = "") -> Iterator[tuple[str, Published]]:
    """The published files among the values of a prompt set's settings."""
    if isinstance(value, Published):
        yield name, value
    elif isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield from _inside(getattr(value, key), key)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _inside(inner, str(key))


def _look(
    what: str, entry: Published, path: str, revision: str | None, first: bool
) -> PublishedFile:
    own = getattr(entry, "present", None)  # a kind of file with another host knows its cache
    found = own() if own and first else hub.present(path, revision)
    parts = tuple(missing_parts(found)) if found is not None and found.is_dir() else ()
    size = entry.gigabytes if first else 0.0
    return PublishedFile(what, path, found, parts, size, entry.licence, entry.gated)


def missing_parts(folder: Path) -> list[str]:
    """What a model's folder lacks: shards that an index names, parts of a pipeline without weights.

    A folder of the hub's cache may hold a part of a repository only.
    """
    missing = []
    for index in sorted(folder.rglob("*.safetensors.index.json")):
        try:
            shards = set(read_json(index)["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            missing.append(str(index.relative_to(folder)))
            continue
        missing += [
            str((index.parent / shard).relative_to(folder))
            for shard in sorted(shards)
            if not (index.parent / shard).is_file()
        ]
    pipeline = folder / "model_index.json"
    if pipeline.is_file():
        missing += [
            part
            for part in _parts_with_weights(pipeline)
            if not any((folder / part).glob("*.safetensors*"))
        ]
    return missing


def _parts_with_weights(index: Path) -> list[str]:
    try:
        parts = read_json(index).items()
    except (OSError, ValueError, AttributeError):
        return ["model_index.json"]
    wanted = ("transformer", "vae", "text_encoder")
    return [
        name
        for name, kind in parts
        if name.startswith(wanted) and isinstance(kind, list) and kind[0] is not None
    ]
