"""Published checkpoints of reward models: the one place that may call `torch.load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_state_dict(path: Path, what: str) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file, or from a torch file that holds nothing but them.

    A torch file may wrap them in `{"state_dict": ...}`; a prefix `module.` is taken off.

    Args:
        path: the file; `.safetensors` by its name, else what `torch.save` wrote.
        what: how messages name it, such as `reward 'HPSv2.1'`.

    Raises:
        UserError: if the file is broken, holds other objects than tensors (they could run code and
            are refused), or no tensors at all.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except torch.serialization.pickle.UnpicklingError as error:  # type: ignore[attr-defined]
        reason = str(error).splitlines()[0]
        raise UserError(f"{what}: {path} is refused: not only tensors: {reason}") from None
    except (OSError, EOFError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{what}: {path} cannot be read as a checkpoint: {reason}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in (state.items() if isinstance(state, dict) else ())
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise UserError(f"{what}: {path} holds no tensors")
    return tensors


def load_weights(model: nn.Module, state: dict[str, Tensor], path: Path, what: str) -> None:
    """Put `state` into `model`, name by name; a model on the meta device takes the tensors over.

    Raises:
        UserError: if a tensor is missing, unknown, or of another shape: another checkpoint.
    """
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in sorted(own.keys() - state.keys())]
    wrong += [f"{name} is unknown" for name in sorted(state.keys() - own.keys())]
    wrong += [
        f"{name} has shape {list(state[name].shape)}, expected {list(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if state[name].shape != own[name].shape
    ]
    if wrong:
        raise UserError(
            f"{what}: {path} is not its checkpoint: {len(wrong)} of {len(own)} tensors do not fit,"
            f" such as: {wrong[0]}"
        )
    model.load_state_dict(state, assign=any(value.is_meta for value in own.values()))
