"""What is trained: all weights of the transformer, or a low-rank adapter (peft)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from bpgo.config.model import LoraSettings
from bpgo.errors import UserError
from bpgo.storage.files import read_json

WEIGHTS = "diffusion_pytorch_model.safetensors"
LORA_WEIGHTS = "pytorch_lora_weights.safetensors"


def add_lora(transformer: Any, settings: LoraSettings, seed: int) -> None:
    """Freeze the transformer and add an adapter whose first output is zero.

    The adapter's weights are float32, whatever it computes in. Its first matrices are drawn from
    `seed`, with standard deviation 1 / rank; its second ones are zero.
    """
    from peft import LoraConfig
    from peft.tuners.tuners_utils import BaseTunerLayer

    transformer.requires_grad_(False)
    _check_targets(transformer, settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=settings.targets,
        init_lora_weights="gaussian",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer.add_adapter(config)
    for module in transformer.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False  # peft would copy the input to float32
            for layers in (module.lora_A, module.lora_B):
                for layer in layers.values():
                    layer.float().__class__ = _MasterLinear


class _MasterLinear(nn.Linear):
    """Float32 weights; computes in its input's dtype."""

    def forward(self, values: Tensor) -> Tensor:
        return linear(values, self.weight.to(values.dtype))


def _check_targets(transformer: Any, targets: list[str]) -> None:
    """Every target must name a linear layer, or the end of some layers' names; peft wants one."""
    layers = [
        f".{name}" for name, layer in transformer.named_modules() if isinstance(layer, nn.Linear)
    ]
    for target in targets:
        if not any(name.endswith(f".{target}") for name in layers):
            raise UserError(
                f"lora.targets: no linear layer of {type(transformer).__name__} is named"
                f" '{target}', or ends so. Its layers end in:"
                f" {', '.join(sorted({_end(name) for name in layers}))}"
            )


def _end(name: str) -> str:
    """`to_out.0` of `.blocks.3.attn.to_out.0`: from the last word that is no number."""
    words = name.split(".")
    last = max(place for place, word in enumerate(words) if not word.isdigit())
    return ".".join(words[last:])


def trainable(transformer: Any) -> dict[str, Tensor]:
    """The parameters that training changes, by name."""
    return {name: p for name, p in transformer.named_parameters() if p.requires_grad}


def save_lora(transformer: Any, folder: Path, pipeline: str) -> None:
    """Write the adapter as `pipeline`, a class of diffusers, reads it.

    Equal weights give equal bytes, in any process.
    """
    import diffusers
    from peft.utils import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    # Without its configuration the file would be read with alpha = rank. In it peft has sets, whose
    # order differs from process to process.
    values = transformer.peft_config["default"].to_dict()
    values = {name: sorted(v) if isinstance(v, set) else v for name, v in values.items()}
    getattr(diffusers, pipeline).save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(transformer),
        transformer_lora_adapter_metadata=values,
    )
    _sort_metadata(folder / LORA_WEIGHTS)


def _sort_metadata(file: Path) -> None:
    """Put the texts in a safetensors file's header, which it writes in any order, into theirs.

    The header is JSON after 8 bytes with its length (the format's description in the repository
    huggingface/safetensors); blanks at its end count.
    """
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
        content = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(content) <= length:
            opened.seek(8)
            opened.write(content.ljust(length))


def save_full(transformer: Any, folder: Path) -> None:
    """Write all weights, float32, in diffusers layout: `transformer/`, in shards where large."""
    folder.mkdir(parents=True, exist_ok=True)
    transformer.save_pretrained(folder / "transformer")


def load_lora(transformer: Any, folder: Path) -> None:
    """Read what `save_lora` wrote into an adapter of the same configuration.

    `folder` may be such a file itself.

    Raises:
        UserError: if the file is missing, broken, or its tensors do not fit.
    """
    from peft.utils import set_peft_model_state_dict

    file = folder if folder.is_file() else folder / LORA_WEIGHTS
    with _problems(file):
        state = {
            name.removeprefix("transformer."): value for name, value in _read(file, folder).items()
        }
        report = set_peft_model_state_dict(transformer, state)
        missing = [name for name in report.missing_keys if "lora_" in name]
        if wrong := [*report.unexpected_keys, *missing]:
            raise RuntimeError(f"unknown or missing tensors {wrong[:3]}")


def load_full(transformer: Any, folder: Path) -> None:
    """Read what `save_full` wrote into a transformer of the same configuration.

    Raises:
        UserError: if a file is missing, broken, or its tensors do not fit.
    """
    file = folder / "transformer" / WEIGHTS
    index = file.with_name(f"{WEIGHTS}.index.json")
    with _problems(index if index.is_file() else file):
        names = [WEIGHTS]
        if index.is_file():
            names = sorted(set(read_json(index)["weight_map"].values()))
        state: dict[str, Tensor] = {}
        for name in names:
            state |= _read(file.with_name(name), folder)
        transformer.load_state_dict(state)


def _read(file: Path, folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise UserError(f"{file}: no such file: there is no trained policy in {folder}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file}: cannot be read: {error}") from None


@contextmanager
def _problems(file: Path) -> Iterator[None]:
    """Inside, what does not fit is told in one line that names `file`."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{file}: does not fit the model: {reason}") from None


@contextmanager
def without_lora(transformer: Any) -> Iterator[None]:
    """Inside the block the adapter is off: the transformer is the reference policy."""
    transformer.disable_adapters()
    try:
        yield
    finally:
        transformer.enable_adapters()
