"""A damaged pipeline is told in one line that names the part, whatever the libraries raise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_cases import FLUX, PROMPTS, Folders

from bpgo.errors import UserError, reading

Damage = Callable[[Path], None]


def text(content: str) -> Damage:
    return lambda file: file.write_text(content) and None


def entry(**values: Any) -> Damage:
    """Other values in a JSON file; None takes one away."""

    def damage(file: Path) -> None:
        found = json.loads(file.read_text()) | values
        file.write_text(json.dumps({key: value for key, value in found.items() if value != GONE}))

    return damage


GONE = "gone"
TOKENS, ABOUT_TOKENS = "tokenizer_2/tokenizer.json", "tokenizer/tokenizer_config.json"
# The file, what becomes of it, and what the message says.
DAMAGED: dict[str, tuple[str, Damage, str]] = {
    "a cut configuration": ("transformer/config.json", text('{"a": '), "Expecting value"),
    "a list": ("transformer/config.json", text("[]"), "is no JSON object"),
    "a nest": ("text_encoder/config.json", text("[" * 100_000), "nested too deeply"),
    "no size": ("vae/config.json", entry(block_out_channels=True), "must be a list"),
    "steps": ("scheduler/scheduler_config.json", entry(num_train_timesteps="x"), "be a number"),
    "an item": (
        "transformer/config.json",
        entry(axes_dims_rope=[8, "x", 4]),
        "'axes_dims_rope' is",
    ),
    "a type": ("text_encoder_2/config.json", entry(d_kv={}), "expected int"),
    "a cut tokenizer": (TOKENS, text('{"version": '), "cannot be loaded as a tokenizer"),
    "an empty tokenizer": (TOKENS, text("{}"), "cannot be loaded as a tokenizer: KeyError"),
    "a tokenizer of another kind": (TOKENS, entry(model={"type": 3}), "did not match any variant"),
    "no padding": (ABOUT_TOKENS, text("{}"), "has no padding token"),
    "no end": (ABOUT_TOKENS, entry(model_max_length=GONE), "is more than the"),
    "an unknown token": (ABOUT_TOKENS, entry(**{"pad_token": "<other>"}), "its encoder knows"),
    "no weights": ("text_encoder/model.safetensors", text(""), "header too small"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_part_is_named(case: str, folders: Folders, tmp_path: Path) -> None:
    name, damage, problem = DAMAGED[case]
    folder = Path(shutil.copytree(folders(FLUX), tmp_path / "policy"))
    damage(folder / name)
    with pytest.raises(UserError) as caught:
        FLUX.policy(folder).encode_prompts(PROMPTS)
    message = str(caught.value)
    assert message.startswith(str((folder / name).parent))
    assert problem in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("entry", [3, [], "x", {}, None])
def test_an_index_that_names_no_library(entry: Any, folders: Folders, tmp_path: Path) -> None:
    """`model_index.json` says `[library, class]` of a part."""
    from bpgo.models.parts import has_part, names_part

    (tmp_path / "model_index.json").write_text(json.dumps({"text_encoder_3": entry}))
    assert not has_part(tmp_path, "text_encoder_3")
    assert not names_part({"text_encoder_3": entry}, "text_encoder_3")
    assert has_part(tmp_path, "text_encoder")


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_what_a_device_raises_is_no_files_fault(kind: type[RuntimeError]) -> None:
    with pytest.raises(kind), reading("a folder: cannot be used"):
        raise kind("of a device")
