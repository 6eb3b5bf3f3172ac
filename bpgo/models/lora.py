"""What is trained: all weights of the transformer, or a low-rank adapter (peft)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpgo.errors import UserError
from bpgo.settings import LoraSettings

WEIGHTS = "diffusion_pytorch_model.safetensors"
LORA_WEIGHTS = "pytorch_lora_weights.safetensors"


def add_lora(transformer: Any, settings: LoraSettings) -> None:
    """Freeze the transformer and add an adapter whose first output is zero.

    The adapter's first matrix is drawn from a fixed seed, so that every arm starts from the same
    weights.
    """
    from peft import LoraConfig

    transformer.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=settings.targets,
        init_lora_weights="gaussian",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            transformer.add_adapter(config)
        except ValueError as error:
            raise UserError(f"lora.targets: {settings.targets}: {error}") from None
    for parameter in trainable(transformer).values():
        parameter.data = parameter.data.float()


def trainable(transformer: Any) -> dict[str, Tensor]:
    """The parameters that training changes, by name."""
    return {name: p for name, p in transformer.named_parameters() if p.requires_grad}


def save_trained(transformer: Any, folder: Path, parameters: str) -> None:
    """Write weights in diffusers layout (`transformer/`) or a LoRA file in peft layout."""
    folder.mkdir(parents=True, exist_ok=True)
    if parameters == "lora":
        from diffusers import FluxPipeline
        from peft.utils import get_peft_model_state_dict

        # Without its configuration the file would be read with alpha = rank.
        FluxPipeline.save_lora_weights(
            folder,
            get_peft_model_state_dict(transformer),
            transformer_lora_adapter_metadata=transformer.peft_config["default"].to_dict(),
        )
    else:
        transformer.save_pretrained(folder / "transformer")


def load_trained(transformer: Any, folder: Path, parameters: str) -> None:
    """Read what `save_trained` wrote into a transformer of the same configuration.

    Raises:
        UserError: if the file is missing, broken, or its tensors do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / (LORA_WEIGHTS if parameters == "lora" else f"transformer/{WEIGHTS}")
    if not file.exists():
        raise UserError(f"{file}: no such file: there is no trained policy in {folder}")
    try:
        state = load_file(file)
        if parameters == "lora":
            from peft.utils import set_peft_model_state_dict

            state = {name.removeprefix("transformer."): value for name, value in state.items()}
            unused = set_peft_model_state_dict(transformer, state).unexpected_keys
            if unused:
                raise RuntimeError(f"unknown tensors {unused[:3]}")
        else:
            transformer.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
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
