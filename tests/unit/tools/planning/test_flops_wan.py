"""Wan's operations and parameters, against torch's own counter and the models themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bpgo.tools.architectures import PUBLISHED
from bpgo.tools.architectures_wan import CLIP_PARAMETERS, WAN
from bpgo.tools.planning.flops import decoder_flops, image_tokens, transformer
from bpgo.tools.planning.flops_wan import CLIP_TOKENS, TEXT_TOKENS

I2V, TI2V = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
ROWS, COLUMNS, FRAMES = 64, 128, 9


def on_meta(name: str, **changes: Any) -> Any:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    with torch.device("meta"):
        return WanTransformer3DModel(**PUBLISHED[name].transformer | changes)


@pytest.mark.parametrize("name", [I2V, TI2V])
def test_operations_are_torchs(name: str) -> None:
    chosen = PUBLISHED[name]
    config = chosen.transformer | {"num_layers": 2} | chosen.index
    tokens = image_tokens(chosen.pipeline, config, chosen.vae, ROWS, COLUMNS, FRAMES)
    ours = transformer(chosen.pipeline, config, tokens, TEXT_TOKENS)
    factor, model = chosen.vae["scale_factor_spatial"], on_meta(name, num_layers=2)
    with torch.device("meta"):
        channels = config["in_channels"]
        inputs = {
            "hidden_states": torch.empty(1, channels, 3, ROWS // factor, COLUMNS // factor),
            "timestep": torch.empty(1, tokens) if name == TI2V else torch.empty(1),
            "encoder_hidden_states": torch.empty(1, TEXT_TOKENS, config["text_dim"]),
        }
        if name == I2V:
            inputs["encoder_hidden_states_image"] = torch.empty(1, CLIP_TOKENS, 1280)
    with FlopCounterMode(display=False) as counter:
        output = model(**inputs)[0]
    assert ours.forward_flops == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    backward = ours.training_flops(lora=False) - ours.forward_flops
    # The embedders' inputs get no gradient: a tenth of two blocks, nothing of forty.
    assert counter.get_total_flops() < backward < 1.1 * counter.get_total_flops()


@pytest.mark.parametrize("name", WAN)
def test_parameters_of_the_published_models(name: str) -> None:
    """Of one layer and of two: the rest is the same."""
    chosen = PUBLISHED[name]
    for layers in (1, 2):
        config = chosen.transformer | {"num_layers": layers}
        ours = transformer(chosen.pipeline, config, 64, 8).parameters
        theirs = on_meta(name, num_layers=layers).parameters()
        assert ours == sum(parameter.numel() for parameter in theirs)


def test_sizes_of_the_published_files() -> None:
    """What the hub's files hold: 57.15 GB of an expert, 90.1 GB of all of Wan2.1 image to video."""
    found = PUBLISHED["Wan-AI/Wan2.2-T2V-A14B-Diffusers"]
    one = transformer(found.pipeline, found.transformer, 64, 8).parameters
    assert 4 * one == pytest.approx(57.154e9, rel=1e-4)
    assert (found.experts, PUBLISHED[I2V].experts) == (2, 1)
    found = PUBLISHED[I2V]
    ours = transformer(found.pipeline, found.transformer, 64, 8).parameters
    whole = 4 * (ours + found.text_parameters + 126_892_531) + 2 * CLIP_PARAMETERS
    assert whole == pytest.approx(90.104e9, rel=1e-3)


@pytest.mark.parametrize("name", [I2V, TI2V])
def test_the_decoder(name: str) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    config = PUBLISHED[name].vae
    factor = config["scale_factor_spatial"]
    with torch.device("meta"):
        model = AutoencoderKLWan(**config)
        latents = torch.empty(1, config["z_dim"], 3, ROWS // factor, COLUMNS // factor)
    with FlopCounterMode(display=False) as counter:
        model.decode(latents)
    operations, parameters = decoder_flops(config, ROWS, COLUMNS, FRAMES)
    assert parameters == sum(parameter.numel() for parameter in model.decoder.parameters())
    assert operations == counter.get_total_flops()
