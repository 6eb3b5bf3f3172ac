"""Operations and parameters, against torch's own counter and the models themselves.

The models stand on the `meta` device: real shapes, no memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bpgo.config.model import ModelSettings
from bpgo.storage.files import read_json, repository_root
from bpgo.tools.architectures import PUBLISHED, Architecture, architecture_of
from bpgo.tools.planning import counting
from bpgo.tools.planning.counts import (
    CLASSES,
    FILE,
    Transformer,
    counts_of,
    decoder,
    latent_shape,
    parts,
    transformer,
)

FLUX, SD35 = "black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-3.5-medium"
I2V, TI2V = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
# The same layers, fewer of them.
FEW: dict[str, dict[str, Any]] = {
    FLUX: {"num_layers": 2, "num_single_layers": 1},
    SD35: {"num_layers": 3, "dual_attention_layers": [0]},
    I2V: {"num_layers": 2},
    TI2V: {"num_layers": 2},
}
TEXT = {FLUX: 40, SD35: 40, I2V: 512, TI2V: 50}
SIDES = (64, 128, 9)  # pixels of a clip: rows, columns, frames; images are square
ROWS = 256
SHIPPED = ["policy", "video/t2v", "video/i2v"]


def few(name: str) -> Architecture:
    return replace(PUBLISHED[name], transformer=PUBLISHED[name].transformer | FEW[name])


def latents_of(found: Architecture) -> tuple[int, int, int]:
    clip = "z_dim" in found.vae
    return latent_shape(found.vae, *(SIDES if clip else (ROWS, ROWS, 1)))


def on_meta(found: Architecture) -> Any:
    with torch.device("meta"):
        return getattr(diffusers, CLASSES[found.pipeline][0])(**found.transformer)


def inputs(name: str, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """One sample's: 256 image tokens of 16 x 16, and a clip's 96 (of TI2V 24) in three frames."""
    width = config.get("joint_attention_dim") or config["text_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "encoder_hidden_states": (1, TEXT[name], width),
        "timestep": (1,),
    }
    if name in (FLUX, SD35):
        shapes["pooled_projections"] = (1, config["pooled_projection_dim"])
    if name == FLUX:
        shapes |= {"hidden_states": (1, 256, 64), "img_ids": (256, 3), "txt_ids": (TEXT[name], 3)}
        shapes["guidance"] = (1,)
    elif name == SD35:
        shapes["hidden_states"] = (1, 16, 32, 32)
    elif name == I2V:
        shapes |= {
            "hidden_states": (1, 36, 3, 8, 16),
            "encoder_hidden_states_image": (1, 257, 1280),
        }
    else:
        shapes |= {"hidden_states": (1, 48, 3, 4, 8), "timestep": (1, 24)}
    with torch.device("meta"):
        return {key: torch.empty(shape) for key, shape in shapes.items()}


def counted(name: str, found: Architecture) -> Transformer:
    return transformer(found, latents_of(found), TEXT[name])


@pytest.mark.parametrize("name", FEW)
def test_operations_are_torchs(name: str) -> None:
    found = few(name)
    ours, model = counted(name, found), on_meta(found)
    with FlopCounterMode(display=False) as counter:
        output = model(**inputs(name, found.transformer))[0]
    assert ours.forward_flops == counter.get_total_flops()
    assert ours.parameters == sum(parameter.numel() for parameter in model.parameters())
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    backward = ours.training_flops(lora=False) - ours.forward_flops
    # The first layers need no gradient of their inputs; torch leaves those out: of Wan a tenth of
    # two blocks, nothing of forty.
    assert counter.get_total_flops() <= backward < 1.1 * counter.get_total_flops()


@pytest.mark.parametrize("name", FEW)
def test_an_adapter(name: str) -> None:
    """Its parameters; operations are attention's and the inputs' gradients, it adds little."""
    from peft import LoraConfig

    found, targets = few(name), ["to_q", "to_k", "to_v", "to_out.0", "proj_out"]
    ours, model = counted(name, found), on_meta(found).requires_grad_(False)
    with torch.device("meta"):
        model.add_adapter(LoraConfig(r=4, target_modules=targets))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert ours.lora_parameters(4, targets) == trained
    if name in (FLUX, SD35):  # Wan's text needs no gradient, and is most of so small a clip
        with FlopCounterMode(display=False) as counter:
            model(**inputs(name, found.transformer))[0].sum().backward()
        assert counter.get_total_flops() == pytest.approx(ours.training_flops(lora=True), rel=0.1)


def test_an_adapter_on_one_block() -> None:
    """FLUX is 3072 wide; of its 38 single blocks one is named."""
    found = transformer(PUBLISHED[FLUX], (1, 64, 64), 512)
    one = found.lora_parameters(4, ["single_transformer_blocks.37.attn.to_q"])
    assert one == 4 * 2 * 3072
    assert found.lora_parameters(4, ["single_transformer_blocks.38.attn.to_q"]) == 0
    assert found.lora_parameters(4, ["attn.to_q"]) == (19 + 38) * one


@pytest.mark.parametrize("name", [FLUX, I2V, TI2V])
def test_the_decoder(name: str) -> None:
    found = PUBLISHED[name]
    frames, rows, columns = latents_of(found)
    channels = found.vae.get("z_dim") or found.vae["latent_channels"]
    sides = (frames, rows, columns) if "z_dim" in found.vae else (rows, columns)
    with torch.device("meta"):
        model = getattr(diffusers, CLASSES[found.pipeline][1])(**found.vae)
        latents = torch.empty(1, channels, *sides)
    with FlopCounterMode(display=False) as counter:
        model.decode(latents)
    operations, parameters = decoder(found, (frames, rows, columns))
    assert operations == counter.get_total_flops()
    assert parameters == sum(parameter.numel() for parameter in model.decoder.parameters())


@pytest.mark.parametrize("name", ["policy", I2V])
def test_what_is_stored_is_what_torch_counts(name: str) -> None:
    found = PUBLISHED[name] if name == I2V else shipped(name)
    kind, config = parts(found)[0]
    fresh = counting.count(kind, config)
    stored = [entry["counts"] for entry in read_json(FILE)["counts"] if entry["class"] == kind]
    assert vars(fresh) in stored
    assert counts_of(kind, config) == fresh


@pytest.mark.slow
def test_everything_stored_is_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each at its smallest size: all sizes of all take minutes."""
    monkeypatch.setattr(counting, "SIZES", counting.SIZES[:1])
    stored = read_json(FILE)
    for entry in stored["counts"]:
        for kind in ("products", "attention"):
            entry["counts"][kind] = [entry["counts"][kind][0][:1]]
    assert counting.everything() == stored


def test_sizes_of_the_published_files() -> None:
    """11.9 and 2.24 billion; on the hub 57.15 GB an expert, 90.1 GB all of Wan2.1's 14B I2V."""

    def parameters(name: str) -> int:
        return transformer(PUBLISHED[name], (1, 8, 8), 512).parameters

    assert parameters(FLUX) == pytest.approx(11.9e9, rel=1e-3)
    assert parameters(SD35) == pytest.approx(2.24e9, rel=2e-3)
    expert = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    assert 4 * parameters(expert) == pytest.approx(57.154e9, rel=1e-4)
    assert (PUBLISHED[expert].experts, PUBLISHED[I2V].experts) == (2, 1)
    found = PUBLISHED[I2V]
    whole = 4 * (parameters(I2V) + found.text_parameters + 126_892_531) + 2 * found.image_parameters
    assert whole == pytest.approx(90.104e9, rel=1e-3)


def shipped(name: str) -> Architecture:
    path = f"bpgo/scenes/weights/{name}"
    found = architecture_of(
        ModelSettings(kind="flux", title="x", path=path, resolution=24, prompt_tokens=12)
    )
    assert found is not None
    return found


def test_a_folder_tells_its_architecture() -> None:
    """The shipped policy's own files, whatever its path looks like."""
    found = shipped("policy")
    latents = latent_shape(found.vae, 24, 24, 1)
    layers = transformer(found, latents, 12)
    assert layers.parameters == 468_832  # as the published benchmark says
    assert layers.tokens == 9 + 12  # of 8 x 8 pixels
    assert found.text_parameters > 0


def test_an_unknown_repository() -> None:
    model = ModelSettings(kind="flux", title="x", path="a/b", resolution=24, prompt_tokens=12)
    assert architecture_of(model) is None


def test_what_is_stored_needs_no_torch() -> None:
    """However the files say it: with the defaults, other scales, keys of other versions."""
    code = (
        "import json, sys; from bpgo.tools.planning.counts import counts_of;"
        "[counts_of(name, config) for name, config in json.loads(sys.stdin.read())];"
        "sys.exit('torch' in sys.modules)"
    )
    found = [part for name in SHIPPED for part in parts(shipped(name))]
    with torch.device("meta"):
        for kind, config in (part for name in PUBLISHED for part in parts(PUBLISHED[name])):
            keys = {key: config[key] for key in config if key != "expand_timesteps"}
            made = dict(getattr(diffusers, kind)(**keys).config)
            found.append((kind, made | config | {"scaling_factor": 7.0, "_name_or_path": "x"}))
    subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(found),
        text=True,
        check=True,
        cwd=repository_root(),
        capture_output=True,
    )


def test_another_shape_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """A third double block of FLUX, 64 wide, heads of 16; diffusers' class says its layers."""
    ((kind, config), _) = parts(shipped("policy"))
    two, three = (counts_of(kind, config | {"num_layers": blocks}) for blocks in (2, 3))
    assert [record.message for record in caplog.records] == [
        "FluxTransformer2DModel: not one of the shapes in counts.json: counting it now, with torch"
    ]
    attention, feed_forward = 8 * (64 * 64 + 64), 2 * (8 * 64 * 64 + 5 * 64)
    shifts, norms = 2 * 6 * (64 * 64 + 64), 4 * 16
    assert three.parameters - two.parameters == attention + feed_forward + shifts + norms
    # With one image and one text token: two tokens attend to two.
    assert three.attention[0][0] - two.attention[0][0] == 4 * 2 * 2 * 64
