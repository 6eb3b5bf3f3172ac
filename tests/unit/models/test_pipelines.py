"""Each adapter against the pipeline it was taken from: prompts in, images out, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_cases import (
    FLUX,
    PROMPTS,
    SD3,
    Case,
    Folders,
    assert_same_images,
    disturb,
    images_of,
    images_of_pipeline,
    noise_of,
)
from tiny_models import TOKENS
from tiny_world import CAPTIONS

from bpgo.config import resolve as config
from bpgo.config.model import ModelSettings
from bpgo.interfaces import PromptEmbeddings
from bpgo.storage.files import repository_root


def test_our_sampler_is_the_pipelines(case: Case, folders: Folders) -> None:
    policy = case.policy(folders(case))
    expected = images_of_pipeline(case, case.pipeline(folders(case)), noise_of(policy))
    assert_same_images(images_of(case, policy), expected)


def test_embeddings_are_the_pipelines(folders: Folders) -> None:
    embeddings = FLUX.policy(folders(FLUX)).encode_prompts(PROMPTS)
    options: dict[str, Any] = {"max_sequence_length": TOKENS}
    with torch.no_grad():
        tokens, pooled, _ = FLUX.pipeline(folders(FLUX)).encode_prompt(PROMPTS, None, **options)
    torch.testing.assert_close(embeddings.tokens, tokens, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(embeddings.pooled, pooled, rtol=1e-5, atol=1e-6)
    assert embeddings.negative_tokens is embeddings.negative_pooled is None


def test_embeddings_of_the_empty_prompt_too(folders: Folders) -> None:
    embeddings = SD3.policy(folders(SD3)).encode_prompts(PROMPTS)
    with torch.no_grad():
        expected = SD3.pipeline(folders(SD3)).encode_prompt(
            PROMPTS, None, None, max_sequence_length=TOKENS
        )
    assert embeddings.negative_tokens is not None
    assert embeddings.negative_pooled is not None
    found = (
        embeddings.tokens,
        embeddings.negative_tokens.expand_as(embeddings.tokens),
        embeddings.pooled,
        embeddings.negative_pooled.expand_as(embeddings.pooled),
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_adapter_serves_the_pipeline(model: Case, folders: Folders, tmp_path: Path) -> None:
    policy = model.policy(folders(model), "lora")
    before = images_of(model, policy)
    disturb(policy)
    policy.save(tmp_path)
    ours = images_of(model, policy)
    assert (ours - before).abs().max() > 0.01
    pipeline = model.pipeline(folders(model))
    pipeline.load_lora_weights(tmp_path)
    assert_same_images(ours, images_of_pipeline(model, pipeline, noise_of(policy)))


def test_full_weights_serve_the_pipeline(model: Case, folders: Folders, tmp_path: Path) -> None:
    policy = model.policy(folders(model))
    before = images_of(model, policy)
    disturb(policy, 0.02)
    policy.save(tmp_path)
    ours = images_of(model, policy)
    assert (ours - before).abs().max() > 0.01
    pipeline = model.pipeline(folders(model))
    kind = type(pipeline.transformer)
    pipeline.register_modules(transformer=kind.from_pretrained(tmp_path / "transformer"))
    assert_same_images(ours, images_of_pipeline(model, pipeline, noise_of(policy)))


def test_guidance_is_one_doubled_batch(folders: Folders) -> None:
    policy = SD3.policy(folders(SD3))
    prompts, latents = policy.encode_prompts(PROMPTS), noise_of(policy)
    sigma, sizes = torch.tensor([0.9, 0.5, 0.1]), []
    policy.transformer.register_forward_pre_hook(
        lambda _module, _args, kwargs: sizes.append(len(kwargs["hidden_states"])),
        with_kwargs=True,
    )
    with torch.no_grad():
        guided = policy.velocity(latents, sigma, prompts, 4.5)
        plain = policy.velocity(latents, sigma, prompts, 1.0)
        off = policy.velocity(latents, sigma, prompts, 0.0)
    assert sizes == [6, 3, 3]
    assert torch.equal(plain, off)
    assert prompts.negative_tokens is not None
    assert prompts.negative_pooled is not None
    empty = PromptEmbeddings(
        prompts.negative_tokens.expand(3, -1, -1), prompts.negative_pooled.expand(3, -1)
    )
    with torch.no_grad():
        unprompted = policy.velocity(latents, sigma, empty, 1.0)
    expected = unprompted + 4.5 * (plain - unprompted)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-5)


def test_guidance_without_the_empty_prompt_is_refused(folders: Folders) -> None:
    policy = SD3.policy(folders(SD3))
    prompts = policy.encode_prompts(PROMPTS)
    alone = PromptEmbeddings(prompts.tokens, prompts.pooled)
    with pytest.raises(ValueError, match="empty prompt"):
        policy.velocity(noise_of(policy), torch.full((3,), 0.5), alone, 2.0)


@pytest.mark.parametrize("name", ["flux1_dev", "sd35_medium"])
def test_published_adapters_fit_their_models(name: str, folders: Folders) -> None:
    file = repository_root() / "config" / "models" / f"{name}.yaml"
    settings = config.validate(ModelSettings, config.read_yaml(file), str(file))
    (case,) = (case for case in (FLUX, SD3) if case.kind == settings.kind)
    policy = case.policy(folders(case), "lora", lora=settings.lora.model_dump())
    trained = {name.split(".lora_")[0] for name in policy.trainable()}
    for target in settings.lora.targets:
        assert any(name.endswith(target) for name in trained)


def test_captions_of_the_embedded_world_are_told_apart(folders: Folders) -> None:
    for case in (FLUX, SD3):
        embeddings = case.policy(folders(case)).encode_prompts(CAPTIONS)
        assert len({tuple(row.flatten().tolist()) for row in embeddings.pooled}) == len(CAPTIONS)
