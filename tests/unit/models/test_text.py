"""The text encoders run in batches, one after the other, and leave nothing behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TOKENS
from tiny_world import CAPTIONS, model_settings

from bpgo.models import text
from bpgo.models.stable_diffusion_3 import StableDiffusion3Policy


@pytest.fixture
def policy(tiny_sd3_folder: Path) -> StableDiffusion3Policy:
    return StableDiffusion3Policy(model_settings(tiny_sd3_folder, kind="stable_diffusion_3"))


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_each_encoder_is_freed_before_the_next(
    policy: StableDiffusion3Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, weights = text.load_model, []

    def watched(*arguments: Any) -> Any:
        assert all(reference() is None for reference in weights)
        encoder = load(*arguments)
        weights.extend(weakref.ref(parameter) for parameter in encoder.parameters())
        return encoder

    monkeypatch.setattr(text, "load_model", watched)
    policy.encode_prompts(CAPTIONS)
    assert len(weights) > 10
    assert all(reference() is None for reference in weights)


def test_batches_give_the_same(
    policy: StableDiffusion3Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = policy.encode_prompts(CAPTIONS)
    sizes: list[int] = []
    load = text.load_model

    def counted(*arguments: Any) -> Any:
        encoder = load(*arguments)
        encoder.register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
        return encoder

    monkeypatch.setattr(text, "load_model", counted)
    monkeypatch.setattr(text, "BATCH_TOKENS", 3 * TOKENS)
    parts = policy.encode_prompts(CAPTIONS)
    assert sizes == [3, 3, 1] * 3  # six captions and the empty one, three encoders
    for name, tensor in vars(whole).items():
        torch.testing.assert_close(getattr(parts, name), tensor, rtol=1e-5, atol=1e-6)
