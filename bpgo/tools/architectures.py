"""Architectures of pipelines: what the `config.json` files of their parts say.

For planning and benchmarks where the weights are not on this machine. No torch is imported. Those
of published pipelines stand in `architectures.yaml`, with their sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bpgo.config.model import ModelSettings
from bpgo.config.resolve import read_yaml
from bpgo.storage.files import read_json, repository_root


@dataclass(frozen=True)
class Architecture:
    """The configurations of a pipeline's parts.

    `pipeline` is the class that `model_index.json` names, and `index` what else it says;
    `text_parameters` counts the parameters of the largest text encoder, `image_parameters` those of
    an image encoder.
    """

    pipeline: str
    transformer: dict[str, Any]
    vae: dict[str, Any]
    scheduler: dict[str, Any]
    text_parameters: int
    image_parameters: int = 0
    index: dict[str, Any] = field(default_factory=dict)

    @property
    def experts(self) -> int:
        """Transformers, of which one works at a noise level."""
        return 2 if (self.index.get("transformer_2") or [None])[0] else 1

    @property
    def text_width(self) -> int:
        """Numbers of a text token, as the transformer gets it."""
        config = self.transformer
        return int(config.get("joint_attention_dim") or config["text_dim"])

    @property
    def pooled_width(self) -> int | None:
        """Numbers of a prompt's pooled embedding, where the transformer takes one."""
        return self.transformer.get("pooled_projection_dim")


FILE = Path(__file__).with_suffix(".yaml")
PUBLISHED = {name: Architecture(**values) for name, values in read_yaml(FILE)["published"].items()}


def architecture_of(model: ModelSettings, place: Path | None = None) -> Architecture | None:
    """The architecture of a configured model, or None if nothing on this machine tells it.

    A folder at `place` (by default `model.path`) is read; of a hub repository that is not here the
    published numbers are known for the repositories of `PUBLISHED`.
    """
    folder = repository_root() / (place or model.path)
    try:
        return read_folder(folder, bytes_each=4 if model.dtype == "float32" else 2)
    except (OSError, ValueError, KeyError, TypeError):  # not here, in part, or broken
        return PUBLISHED.get(model.path)


def read_folder(folder: Path, bytes_each: int) -> Architecture:
    """What a pipeline's folder says; its weights take so many bytes each."""
    encoders, index = folder.glob("text_encoder*"), read_json(folder / "model_index.json")
    largest = max((_weight_bytes(part) for part in encoders), default=0)
    return Architecture(
        index["_class_name"],
        read_json(folder / "transformer" / "config.json"),
        read_json(folder / "vae" / "config.json"),
        read_json(folder / "scheduler" / "scheduler_config.json"),
        text_parameters=largest // bytes_each,
        image_parameters=_weight_bytes(folder / "image_encoder") // bytes_each,
        index=index,
    )


def _weight_bytes(part: Path) -> int:
    return sum(file.stat().st_size for file in part.glob("*.safetensors"))
