"""The published Wan models in the plan: what they cost and where they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_world import tiny_settings

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.storage.files import repository_root
from bpgo.tools.planning.model import host_gigabytes, memory, model_size
from bpgo.tools.planning.work import passes

GPU = 80.0  # gigabytes


def planned(name: str, step_selection: str = "shared", **model: Any) -> Settings:
    values = config.read_yaml(repository_root() / "config" / "models" / f"{name}.yaml")
    arm = tiny_settings(Path("x")).arms["grpo"].model_dump() | {"step_selection": step_selection}
    settings = tiny_settings(
        Path(values.pop("path")),
        model=values | model,
        arms={"grpo": arm},
        training={"parameters": "lora"},
        rollout={"guidance_scale": 5.0, "batch_size": 1},
    )
    return settings.model_copy(update={"arms": {"grpo": settings.arms["grpo"]}})


@pytest.mark.parametrize(
    ("name", "latents", "experts"),
    [
        ("wan21_t2v_1_3b", 13 * 30 * 52, 1),
        ("wan21_i2v_14b", 13 * 30 * 52, 1),
        ("wan22_t2v_a14b", 13 * 30 * 52, 2),
        ("wan22_i2v_a14b", 13 * 30 * 52, 2),
        ("wan22_ti2v_5b", 13 * 15 * 26, 1),
    ],
)
def test_every_published_model_fits_one_gpu(name: str, latents: int, experts: int) -> None:
    settings = planned(name)
    size = model_size(settings)
    clip = 257 if name == "wan21_i2v_14b" else 0
    assert size.transformer.tokens == latents + 512 + clip
    assert passes(settings, 5.0) == 2
    one = size.transformer.lora_parameters(settings.model.lora.rank, settings.model.lora.targets)
    assert size.trained == experts * one
    needed = memory(settings, size)
    assert needed.standing["transformer"] == pytest.approx(
        2 * size.transformer.parameters / 1e9  # one expert's, bfloat16
    )
    assert needed.batch_that_fits(GPU) >= 1
    assert host_gigabytes(settings, size) > experts * 2 * size.transformer.parameters / 1e9


def test_where_both_experts_are_needed_at_once() -> None:
    one = memory(settings := planned("wan22_t2v_a14b"), size := model_size(settings))
    for both in (
        planned("wan22_t2v_a14b", step_selection="per_sample"),
        planned("wan22_t2v_a14b", offload_expert=False),
    ):
        assert memory(both, size).standing["transformer"] == pytest.approx(
            2 * one.standing["transformer"]
        )


def test_less_memory() -> None:
    plain = planned("wan21_t2v_1_3b", gradient_checkpointing=False)
    size = model_size(plain)
    frugal = planned("wan21_t2v_1_3b", tile_vae=True)
    assert memory(frugal, size).per_sample < memory(plain, size).per_sample / 5
    assert memory(frugal, size).passing["decoding"] < memory(plain, size).passing["decoding"] / 3


def test_guidance_with_half_the_gradient() -> None:
    both, half = (
        memory(settings, model_size(settings)).per_sample
        for settings in (
            planned("wan21_t2v_1_3b", guidance_gradient=which) for which in ("both", "conditional")
        )
    )
    assert half == pytest.approx(both / 2)


def test_a_first_frame_is_kept_beside_the_text() -> None:
    """In bfloat16: 512 tokens, and for each latent place 4 + 16 values or, of TI2V, the first's."""
    text = 2 * 512 * 4096
    places = 60 * 104
    assert model_size(planned("wan22_t2v_a14b")).embedding_bytes == text
    beside = model_size(planned("wan22_i2v_a14b")).embedding_bytes - text
    assert beside == 2 * 20 * 13 * places
    within = model_size(planned("wan22_ti2v_5b", task="i2v")).embedding_bytes - text
    assert within == 2 * 48 * places // 4
