"""The published Wan 2.1 and 2.2 pipelines, as numbers.

Sources: huggingface/diffusers `scripts/convert_wan_to_diffusers.py`, which made the hub's folders
(transformers, both codecs, shift, `boundary_ratio`, `expand_timesteps`), cross-checked with the
folders' `config.json` and `model_index.json` files where public code quotes them, and with the
sizes of their files. Values that are the classes' defaults are left out.
"""

from __future__ import annotations

from typing import Any

UMT5_PARAMETERS = 5_680_910_336  # UMT5-XXL's encoder
CLIP_PARAMETERS = 630_766_080  # CLIP ViT-H/14's image half, of Wan2.1 image to video


def _transformer(heads: int, layers: int, feed_forward: int, **changes: Any) -> dict[str, Any]:
    return {
        "patch_size": [1, 2, 2],
        "num_attention_heads": heads,
        "attention_head_dim": 128,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 4096,
        "freq_dim": 256,
        "ffn_dim": feed_forward,
        "num_layers": layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "image_dim": None,
        "added_kv_proj_dim": None,
        "rope_max_seq_len": 1024,
        **changes,
    }


SMALL = _transformer(12, 30, 8960)
LARGE = _transformer(40, 40, 13824)
WITH_FRAMES = LARGE | {"in_channels": 36}  # latents, mask, the first frame's latents
MIDDLE = _transformer(24, 30, 14336, in_channels=48, out_channels=48)

VAE: dict[str, Any] = {
    "base_dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
# Wan2.2-TI2V-5B's; the statistics of its 48 channels change no cost and are left out.
PATCHING_VAE = VAE | {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}


def _scheduler(shift: float) -> dict[str, Any]:
    return {
        "_class_name": "UniPCMultistepScheduler",
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": shift,
    }


_PARTS = ["diffusers", "WanTransformer3DModel"]
TWO = {"transformer_2": _PARTS}

# Name on the hub: pipeline, transformer, codec, scheduler, what the index says, image encoder.
WAN: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], int]] = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": ("WanPipeline", SMALL, VAE, _scheduler(3.0), {}, 0),
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": (
        "WanImageToVideoPipeline",
        WITH_FRAMES | {"image_dim": 1280, "added_kv_proj_dim": 5120},
        VAE,
        _scheduler(3.0),
        {},
        CLIP_PARAMETERS,
    ),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": (
        "WanPipeline",
        LARGE,
        VAE,
        _scheduler(3.0),
        TWO | {"boundary_ratio": 0.875},
        0,
    ),
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": (
        "WanImageToVideoPipeline",
        WITH_FRAMES,
        VAE,
        _scheduler(3.0),
        TWO | {"boundary_ratio": 0.9},
        0,
    ),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": (
        "WanPipeline",
        MIDDLE,
        PATCHING_VAE,
        _scheduler(5.0),
        {"expand_timesteps": True},
        0,
    ),
}
