"""Operations and parameters, against torch's own counter and the models themselves.

The models stand on the `meta` device: real shapes, no memory.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bpgo.config.settings import ModelSettings
from bpgo.tools.architectures import PUBLISHED, architecture_of
from bpgo.tools.planning.flops import decoder_flops, image_tokens, transformer
from bpgo.tools.planning.layers import Transformer

FLUX, SD35 = "black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-3.5-medium"
FEW = {
    FLUX: {"num_layers": 2, "num_single_layers": 1},
    SD35: {"num_layers": 3, "dual_attention_layers": [0]},
}
IMAGES = [FLUX, SD35]
SIDE, TEXT = 256, 40  # pixels, text tokens


def on_meta(name: str, **changes: Any) -> Any:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    kind = FluxTransformer2DModel if name == FLUX else SD3Transformer2DModel
    with torch.device("meta"):
        return kind(**PUBLISHED[name].transformer | changes)


def inputs(name: str, config: dict[str, Any], tokens: int) -> dict[str, torch.Tensor]:
    """One sample's."""
    with torch.device("meta"):
        both = {
            "encoder_hidden_states": torch.empty(1, TEXT, config["joint_attention_dim"]),
            "pooled_projections": torch.empty(1, config["pooled_projection_dim"]),
            "timestep": torch.empty(1),
        }
        if name == SD35:
            return both | {"hidden_states": torch.empty(1, 16, SIDE // 8, SIDE // 8)}
        return both | {
            "hidden_states": torch.empty(1, tokens, config["in_channels"]),
            "guidance": torch.empty(1),
            "img_ids": torch.empty(tokens, 3),
            "txt_ids": torch.empty(TEXT, 3),
        }


def counted(name: str) -> tuple[Transformer, dict[str, Any], int]:
    chosen = PUBLISHED[name]
    config = chosen.transformer | FEW[name]
    tokens = image_tokens(chosen.pipeline, config, chosen.vae, SIDE, SIDE)
    return transformer(chosen.pipeline, config, tokens, TEXT), config, tokens


@pytest.mark.parametrize("name", IMAGES)
def test_operations_are_torchs(name: str) -> None:
    ours, config, tokens = counted(name)
    model = on_meta(name, **FEW[name])
    with FlopCounterMode(display=False) as counter:
        output = model(**inputs(name, config, tokens))[0]
    assert ours.forward_flops == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    backward = ours.training_flops(lora=False) - ours.forward_flops
    # The first layers need no gradient of their inputs; torch leaves those out.
    assert backward == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("name", IMAGES)
def test_operations_of_an_adapter(name: str) -> None:
    """Only attention's and the inputs' gradients: the adapter itself adds little."""
    from peft import LoraConfig

    ours, config, tokens = counted(name)
    model = on_meta(name, **FEW[name]).requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    with torch.device("meta"):
        model.add_adapter(LoraConfig(r=4, target_modules=targets))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert ours.lora_parameters(4, targets) == trained
    with FlopCounterMode(display=False) as counter:
        model(**inputs(name, config, tokens))[0].sum().backward()
    assert counter.get_total_flops() == pytest.approx(ours.training_flops(lora=True), rel=0.1)


@pytest.mark.parametrize(("name", "published"), [(FLUX, 11.9e9), (SD35, 2.24e9)])
def test_parameters_of_the_published_models(name: str, published: float) -> None:
    chosen = PUBLISHED[name]
    ours = transformer(chosen.pipeline, chosen.transformer, 1024, 512).parameters
    assert ours == sum(parameter.numel() for parameter in on_meta(name).parameters())
    assert ours == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("name", IMAGES)
def test_the_decoder(name: str) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.device("meta"):
        model = AutoencoderKL(**PUBLISHED[name].vae)
        latents = torch.empty(1, 16, SIDE // 8, SIDE // 8)
    with FlopCounterMode(display=False) as counter:
        model.decode(latents)
    operations, parameters = decoder_flops(PUBLISHED[name].vae, SIDE, SIDE)
    assert operations == counter.get_total_flops()
    assert parameters == sum(parameter.numel() for parameter in model.decoder.parameters())


def test_a_folder_tells_its_architecture() -> None:
    """The shipped policy's own files, whatever its path looks like."""
    model = ModelSettings(
        kind="flux", title="x", path="bpgo/scenes/weights/policy", resolution=24, prompt_tokens=12
    )
    found = architecture_of(model)
    assert found is not None
    layers = transformer(found.pipeline, found.transformer, 9, 12)
    assert layers.parameters == 468_832  # as the published benchmark says
    assert (
        image_tokens(found.pipeline, found.transformer, found.vae, 24, 24) == 9
    )  # of 8 x 8 pixels
    assert found.text_parameters > 0


def test_an_unknown_repository() -> None:
    model = ModelSettings(kind="flux", title="x", path="a/b", resolution=24, prompt_tokens=12)
    assert architecture_of(model) is None
