"""The network of VideoAlign: transformers' Qwen2-VL with the LoRA merged in, and the reward head.

B clips, L tokens, D the width.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpgo.errors import UserError
from bpgo.rewards.shared import qwen_vl
from bpgo.rewards.shared.checkpoints import read_state_dict

WRAPPER = "base_model.model."  # peft's
HEAD = "rm_head.weight"
WORDS = "language_model.embed_tokens.weight"


class RewardModel:
    """Reads three numbers at three tokens of each text."""

    def __init__(self, model: Any, head: Tensor) -> None:
        self.model, self.head = model, head
        self.words = len(model.get_input_embeddings().weight)

    def __call__(
        self, ids: Tensor, mask: Tensor, patches: Tensor, grid: Tensor, marks: list[int]
    ) -> Tensor:
        """The numbers [B, 3] float32 at the tokens `marks` of ids [B, L].

        A prompt that spells such a token is not taken for it: it stands between the second and the
        third, so of those the first is meant, of the third the last.
        """
        batch, length = ids.shape
        count = torch.arange(length, device=ids.device)
        hidden = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=count.expand(3, batch, length),
            pixel_values_videos=patches,
            video_grid_thw=grid,
            use_cache=False,
        ).last_hidden_state
        places = [(ids == mark).float().argmax(dim=1) for mark in marks[:2]]
        places.append(length - 1 - (ids == marks[2]).flip(1).float().argmax(dim=1))
        rows = torch.arange(batch, device=ids.device)[:, None]
        read = hidden[rows, torch.stack(places, dim=1)].float()  # [B, 3, D]
        return (read * self.head).sum(dim=2)


def load_model(
    path: Path, base: Path, scale: float, place: tuple[str, str], what: str
) -> RewardModel:
    """The model in `model.pth`; sizes from the folder `base`, LoRA times `scale`.

    `place` is device and dtype.

    Raises:
        UserError: if the file is broken, or not VideoReward's.
    """
    from transformers import Qwen2VLConfig

    values = qwen_vl.read_config(base, "qwen2_vl", what)
    state = merged(read_state_dict(path, what), scale)
    head = state.pop(HEAD, None)
    state = qwen_vl.model_names(state)
    if head is None or WORDS not in state or len(head) not in (1, 3):
        raise UserError(f"{what}: {path} is not its checkpoint: no {HEAD} with one or three rows")
    config = Qwen2VLConfig.from_dict(values)
    config.text_config.vocab_size = len(state[WORDS])
    device, dtype = place[0], getattr(torch, place[1])
    model = qwen_vl.finish(
        qwen_vl.build("Qwen2VLModel", config), state, path, what, (device, dtype)
    )
    return RewardModel(model, head.float().to(device).clone())


def merged(state: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The tensors of a model that peft wraps, with W + scale * B A in place of W, A and B.

    Names come without the wrapper; of modules that peft saved whole, the trained one stays.
    """
    state = {name.removeprefix(WRAPPER): value for name, value in state.items()}
    found = {}
    for name, value in state.items():
        if ".lora_A." in name or ".lora_B." in name or ".original_module." in name:
            continue
        plain = re.sub(r"\.(base_layer|modules_to_save\.\w+)\.", ".", name)
        down = state.get(name.replace("base_layer", "lora_A.default"))
        up = state.get(name.replace("base_layer", "lora_B.default"))
        if ".base_layer.weight" in name and down is not None and up is not None:
            value = value.float() + scale * (up.float() @ down.float())
        found[plain] = value
    return found
