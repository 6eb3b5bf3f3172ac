"""What every registered model must do. A new one adds a line to `BUILDERS`; nothing else here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TOKENS, build_tiny_flux, build_tiny_sd3
from tiny_wan import build_tiny_wan
from tiny_world import CAPTIONS
from torch import Tensor

from bpgo import registry
from bpgo.config import resolve as config
from bpgo.config.model import ModelSettings
from bpgo.core.rollout import initial_noise
from bpgo.core.scoring import decoded_shape
from bpgo.errors import UserError
from bpgo.interfaces import Policy, PromptEmbeddings
from bpgo.storage.files import repository_root
from bpgo.storage.hub import COMMIT

# A kind of model -> a function that writes a tiny one into a folder; 24 x 24 images.
BUILDERS: dict[str, Callable[[Path], Path]] = {
    "flux": build_tiny_flux,
    "stable_diffusion_3": build_tiny_sd3,
    "wan": build_tiny_wan,
}
OPTIONS: dict[str, dict[str, Any]] = {"wan": {"task": "t2v", "frames": 5}}
MODEL_FILES = sorted((repository_root() / "config" / "models").glob("*.yaml"))
COUNT = 3


def test_every_registered_model_is_tested() -> None:
    assert set(BUILDERS) == set(registry.MODELS)


@pytest.fixture(scope="module", params=sorted(registry.MODELS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[kind](tmp_path_factory.mktemp(kind) / "policy")


Make = Callable[..., Policy]


@pytest.fixture(scope="module")
def make(kind: str, folder: Path) -> Make:
    """A fresh policy; options: `parameters`, and keys of the model's settings."""

    def call(parameters: str = "full", **changes: Any) -> Policy:
        values = {"kind": kind, "title": kind, "path": str(folder), "resolution": 24}
        values |= OPTIONS.get(kind, {})
        settings = ModelSettings.model_validate(
            {**values, "prompt_tokens": TOKENS, "lora": {"rank": 2}, **changes}
        )
        policy: Policy = registry.load_model_class(kind)(settings, parameters, "cpu")
        return policy

    return call


@pytest.fixture(scope="module")
def embeddings(make: Make) -> PromptEmbeddings:
    return make().encode_prompts(CAPTIONS[:COUNT])


def latents_of(policy: Policy) -> Tensor:
    names = [("p", sample) for sample in range(COUNT)]
    return initial_noise(policy.latent_shape, 1, "contract", names)


def velocity_of(policy: Policy, embeddings: PromptEmbeddings) -> Tensor:
    sigma = torch.tensor([0.9, 0.5, 0.1])
    return policy.velocity(latents_of(policy), sigma, embeddings, 1.0)


def move(policy: Policy) -> None:
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter += 0.05


def test_embeddings(make: Make, embeddings: PromptEmbeddings) -> None:
    assert len(embeddings) == COUNT
    alone = make().encode_prompts(CAPTIONS[1:2])
    torch.testing.assert_close(alone.tokens, embeddings.tokens[1:2], rtol=1e-5, atol=1e-5)
    if embeddings.pooled is not None:
        torch.testing.assert_close(alone.pooled, embeddings.pooled[1:2], rtol=1e-5, atol=1e-5)
    assert not torch.equal(embeddings.tokens[0], embeddings.tokens[1])


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_schedule_falls_to_zero(steps: int, make: Make) -> None:
    sigmas = make().sigmas(steps)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float32
    assert 0.9 < sigmas[0] <= 1
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert torch.equal(make().sigmas(steps), sigmas)


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_velocity(parameters: str, make: Make, embeddings: PromptEmbeddings) -> None:
    policy = make(parameters)
    found = velocity_of(policy, embeddings)
    assert found.shape == (COUNT, *policy.latent_shape)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert torch.equal(velocity_of(policy, embeddings), found)
    assert torch.equal(velocity_of(make(parameters), embeddings), found)


def test_batched_velocity_is_the_single_ones(make: Make, embeddings: PromptEmbeddings) -> None:
    policy = make()
    with torch.no_grad():
        together, latents = velocity_of(policy, embeddings), latents_of(policy)
        for row, sigma in enumerate((0.9, 0.5, 0.1)):
            one = slice(row, row + 1)
            alone = policy.velocity(
                latents[one], torch.tensor([sigma]), embeddings.select(one), 1.0
            )
            torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_gradients_reach_what_is_trained(
    parameters: str, make: Make, embeddings: PromptEmbeddings
) -> None:
    policy = make(parameters)
    trained = policy.trainable()
    assert trained
    velocity_of(policy, embeddings).square().mean().backward()
    gradients = {name: value.grad for name, value in trained.items()}
    assert all(value is not None and value.isfinite().all() for value in gradients.values())
    moving = [name for name, value in gradients.items() if value is not None and value.any()]
    assert len(moving) >= len(trained) / 2
    others = [p for p in policy.transformer.parameters() if not p.requires_grad]
    assert all(parameter.grad is None for parameter in others)


def test_decode(make: Make) -> None:
    policy = make()
    with torch.no_grad():
        images = policy.decode(latents_of(policy))
        alone = policy.decode(latents_of(policy)[:1])
    assert images.shape == (COUNT, *decoded_shape(policy.settings))
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    torch.testing.assert_close(alone, images[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_what_is_saved_comes_back(
    parameters: str, make: Make, embeddings: PromptEmbeddings, tmp_path: Path
) -> None:
    trained, fresh = make(parameters), make(parameters)
    move(trained)
    trained.save(tmp_path / "policy")
    with torch.no_grad():
        wanted = velocity_of(trained, embeddings)
        assert not torch.equal(velocity_of(fresh, embeddings), wanted)
        fresh.load_trained(tmp_path / "policy")
        assert torch.equal(velocity_of(fresh, embeddings), wanted)
    assert all(file.suffix in (".safetensors", ".json") for file in tmp_path.rglob("*.*"))


def test_nothing_to_load_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        make().load_trained(tmp_path)


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_reference_stays(parameters: str, make: Make, embeddings: PromptEmbeddings) -> None:
    policy = make(parameters)
    with torch.no_grad():
        before, reference = velocity_of(policy, embeddings), policy.reference_velocity()
        move(policy)
        sigma = torch.tensor([0.9, 0.5, 0.1])
        assert torch.equal(reference(latents_of(policy), sigma, embeddings, 1.0), before)
        assert not torch.equal(velocity_of(policy, embeddings), before)


def test_an_adapter_starts_as_the_base(make: Make, embeddings: PromptEmbeddings) -> None:
    with torch.no_grad():
        full, adapted = (velocity_of(make(kind), embeddings) for kind in ("full", "lora"))
    assert torch.equal(full, adapted)


def test_a_folder_that_is_not_there(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path / "nowhere")):
        make(path=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("file", MODEL_FILES, ids=lambda path: path.stem)
def test_shipped_settings(file: Path) -> None:
    settings = config.validate(ModelSettings, config.read_yaml(file), str(file))
    assert settings.kind in registry.MODELS
    folder = repository_root() / settings.path
    if not folder.is_dir():  # fetched from the hub, at a pinned revision
        assert settings.revision is not None
        assert COMMIT.fullmatch(settings.revision)
        assert settings.licence
        assert settings.gigabytes > 0
        return
    policy: Policy = registry.load_model_class(settings.kind)(settings, "full", "cpu")
    with torch.no_grad():
        noise = initial_noise(policy.latent_shape, 1, "contract", [("p", 0)])
        assert policy.decode(noise).shape == (1, *decoded_shape(settings))
