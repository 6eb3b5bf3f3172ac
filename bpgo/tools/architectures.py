"""Published architectures, as numbers: what a pipeline's `config.json` files say.

For planning and benchmarks where the weights are not on this machine. No torch is imported.
Sources: the `config.json` files of the hub repositories named below at the revisions that
`config/models/` pins; cross-checked with black-forest-labs/flux `src/flux/util.py` and
Stability-AI/sd3.5 `sd3_infer.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bpgo.config.settings import ModelSettings
from bpgo.storage.files import read_json, repository_root
from bpgo.tools.architectures_wan import UMT5_PARAMETERS, WAN


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


# The 16-channel codec of both models; only the scaling of the latents differs.
_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "force_upcast": True,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}

PUBLISHED = {
    "black-forest-labs/FLUX.1-dev": Architecture(
        "FluxPipeline",
        {
            "patch_size": 1,
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
            "axes_dims_rope": [16, 56, 56],
        },
        {**_VAE, "scaling_factor": 0.3611, "shift_factor": 0.1159},
        {
            "num_train_timesteps": 1000,
            "shift": 3.0,
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
        text_parameters=4_762_310_656,  # T5-XXL's encoder
    ),
    "stabilityai/stable-diffusion-3.5-medium": Architecture(
        "StableDiffusion3Pipeline",
        {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "dual_attention_layers": list(range(13)),
            "qk_norm": "rms_norm",
        },
        {**_VAE, "scaling_factor": 1.5305, "shift_factor": 0.0609},
        {"num_train_timesteps": 1000, "shift": 3.0},
        text_parameters=4_762_310_656,
    ),
    **{
        name: Architecture(
            pipeline, transformer, vae, scheduler, UMT5_PARAMETERS, image_parameters, index
        )
        for name, (pipeline, transformer, vae, scheduler, index, image_parameters) in WAN.items()
    },
}


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
