"""Each adapter against the pipeline it was taken from: prompts in, images out, both ways."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TOKENS, build_tiny_flux, build_tiny_sd3
from tiny_world import CAPTIONS
from torch import Tensor

from bpgo import config
from bpgo.core.interfaces import PromptEmbeddings
from bpgo.core.rollout import rollout, sample, step_log_prob
from bpgo.core.sde import transition
from bpgo.errors import UserError
from bpgo.files import repository_root
from bpgo.models.pipeline import PipelinePolicy
from bpgo.registry import load_model_class
from bpgo.seeding import generator
from bpgo.settings import ModelSettings

PROMPTS = ["A photo of 3 cats, naïvely drawn!", "an astronaut on a horse", "a"]
STEPS = 5
DYNAMIC = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 20}


@dataclass(frozen=True)
class Case:
    """A pipeline, and how it is sampled."""

    kind: str
    build: Callable[..., Path]
    guidance: float
    options: dict[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def pipeline(self, folder: Path) -> Any:
        import diffusers

        loaded = getattr(diffusers, load_model_class(self.kind).PIPELINE).from_pretrained(
            folder, local_files_only=True, **dict.fromkeys(self.absent)
        )
        loaded.set_progress_bar_config(disable=True)
        return loaded

    def policy(self, folder: Path, parameters: str = "full", **changes: Any) -> PipelinePolicy:
        values = {"kind": self.kind, "title": "tiny", "path": str(folder), "resolution": 24}
        values |= {"prompt_tokens": TOKENS, "lora": {"rank": 2, "alpha": 6.0}, **changes}
        settings = ModelSettings.model_validate(values)
        policy: PipelinePolicy = load_model_class(self.kind)(settings, parameters)
        return policy


FLUX = Case("flux", build_tiny_flux, 3.5, {"guidance": True, **DYNAMIC})
SD3 = Case("stable_diffusion_3", build_tiny_sd3, 4.5)
CASES = {
    "flux dev": FLUX,
    "flux without guidance, static shift": Case("flux", build_tiny_flux, 1.0, {"shift": 3.0}),
    "sd3": SD3,
    "sd3 without guidance": Case("stable_diffusion_3", build_tiny_sd3, 1.0),
    "sd3 dynamic shift": Case("stable_diffusion_3", build_tiny_sd3, 2.0, DYNAMIC),
    "sd3 without T5": Case(
        "stable_diffusion_3", build_tiny_sd3, 4.5, {"t5": False}, ("text_encoder_3", "tokenizer_3")
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module", params=[FLUX, SD3], ids=lambda case: case.kind)
def model(request: pytest.FixtureRequest) -> Case:
    """One case of each kind."""
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """The folder of a case's pipeline, with tokenizers for any text; read only."""
    made: dict[int, Path] = {}

    def folder(case: Case) -> Path:
        if id(case) not in made:
            place = tmp_path_factory.mktemp("pipeline") / "policy"
            made[id(case)] = case.build(place, english=True, **case.options)
        return made[id(case)]

    return folder


Folders = Callable[[Case], Path]


def noise_of(policy: PipelinePolicy) -> Tensor:
    return torch.randn(len(PROMPTS), *policy.latent_shape, generator=generator(1, "latents"))


def images_of(case: Case, policy: PipelinePolicy) -> Tensor:
    """Ours: embeddings, Euler steps, decoded."""
    embeddings = policy.encode_prompts(PROMPTS)
    return sample(policy, embeddings, noise_of(policy), policy.sigmas(STEPS), case.guidance, 8)


def images_of_pipeline(case: Case, pipeline: Any, noise: Tensor) -> Tensor:
    found: Tensor = pipeline(
        PROMPTS,
        height=24,
        width=24,
        num_inference_steps=STEPS,
        guidance_scale=case.guidance,
        max_sequence_length=TOKENS,
        latents=noise,
        output_type="pt",
    ).images
    return found


def assert_same_images(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert found.std() > 0.05  # not all black


def disturb(policy: PipelinePolicy, size: float = 0.1) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(policy.trainable().values()):
            parameter += size * torch.randn(parameter.shape, generator=generator(number))


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


def shards(place: Path, policy: PipelinePolicy) -> list[Path]:
    """The transformer in several files, as large ones are published and saved."""
    shutil.rmtree(place, ignore_errors=True)
    policy.transformer.save_pretrained(place, max_shard_size="20KB")
    files = sorted(place.glob("*-of-*.safetensors"))
    assert len(files) > 1
    return files


def test_shards_are_read(model: Case, folders: Folders, tmp_path: Path) -> None:
    trained = model.policy(folders(model))
    disturb(trained)
    files = shards(tmp_path / "run" / "transformer", trained)
    policy = model.policy(folders(model))
    policy.load_trained(tmp_path / "run")
    assert torch.equal(images_of(model, policy), images_of(model, trained))
    files[0].unlink()
    with pytest.raises(UserError, match=f"{files[0].name}: no such file"):
        policy.load_trained(tmp_path / "run")


def test_a_base_model_in_shards(model: Case, folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders(model), tmp_path / "policy"))
    whole = model.policy(folder)
    files = shards(folder / "transformer", whole)
    assert torch.equal(images_of(model, model.policy(folder)), images_of(model, whole))
    files[-1].unlink()
    with pytest.raises(UserError, match=f"cannot be loaded as .*{files[-1].name}"):
        model.policy(folder)


def test_a_text_encoder_in_shards(model: Case, folders: Folders, tmp_path: Path) -> None:
    from transformers import T5EncoderModel

    folder = Path(shutil.copytree(folders(model), tmp_path / "policy"))
    policy = model.policy(folder)
    whole = policy.encode_prompts(PROMPTS)
    place = folder / policy.ENCODERS[-1]
    encoder = T5EncoderModel.from_pretrained(place)
    shutil.rmtree(place)
    encoder.save_pretrained(place, max_shard_size="5KB")
    assert torch.equal(policy.encode_prompts(PROMPTS).tokens, whole.tokens)
    gone = sorted(place.glob("*-of-*.safetensors"))[0]
    gone.unlink()
    with pytest.raises(UserError, match=f"cannot be loaded as T5EncoderModel.*{gone.name}"):
        policy.encode_prompts(PROMPTS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_first_ratios_are_one(parameters: str, dtype: str, model: Case, folders: Folders) -> None:
    policy = model.policy(folders(model), parameters, dtype=dtype)
    disturb(policy, 0.02)
    prompts = policy.encode_prompts(PROMPTS)
    sigmas, noise_level = policy.sigmas(STEPS), 0.7
    noise = torch.stack([noise_of(policy)] * (STEPS + 1), dim=1)
    drawn = rollout(policy, prompts, noise, sigmas, "flow", noise_level, [0, 1, 2], model.guidance)
    assert drawn.latents.dtype == drawn.log_probs.dtype == torch.float32
    for step in (0, 1, 2):
        sigma, sigma_next = sigmas[step].expand(3), sigmas[step + 1].expand(3)
        latents, following = drawn.latents[:, step], drawn.latents[:, step + 1]
        velocity = policy.velocity(latents, sigma, prompts, model.guidance)
        assert velocity.requires_grad
        moved = transition(
            "flow", velocity, latents, sigma, sigma_next, noise_level, sigma_max=sigmas[1]
        )
        ratio = (step_log_prob("flow", following, moved) - drawn.log_probs[:, step]).exp()
        assert torch.equal(ratio, torch.ones_like(ratio))


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


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_gradient_checkpointing_changes_no_gradient(
    parameters: str, model: Case, folders: Folders
) -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        policy = model.policy(folders(model), parameters, gradient_checkpointing=checkpointing)
        disturb(policy)
        count: list[int] = []
        policy.transformer.transformer_blocks[0].register_forward_pre_hook(
            lambda *_, count=count: count.append(1)
        )
        prompts = policy.encode_prompts(PROMPTS)
        sigma = torch.full((3,), 0.5)
        velocity = policy.velocity(noise_of(policy), sigma, prompts, model.guidance)
        velocity.square().mean().backward()
        gradients.append({name: value.grad for name, value in policy.trainable().items()})
        calls.append(len(count))
    assert calls == [1, 2]  # run again in the backward pass
    plain, again = gradients
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert gradient is not None
        assert again[name] is not None
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7)


def test_what_is_trained_is_float32(model: Case, folders: Folders) -> None:
    for parameters, frozen in (("full", None), ("lora", torch.bfloat16)):
        policy = model.policy(folders(model), parameters, dtype="bfloat16")
        assert {p.dtype for p in policy.trainable().values()} == {torch.float32}
        others = {p.dtype for p in policy.transformer.parameters() if not p.requires_grad}
        assert others == ({frozen} if frozen else set())
        assert policy.vae.dtype == torch.float32
    assert model.policy(folders(model), vae_dtype="bfloat16").vae.dtype == torch.bfloat16


def test_bfloat16_stays_near(model: Case, folders: Folders) -> None:
    exact = images_of(model, model.policy(folders(model)))
    for parameters in ("full", "lora"):
        near = images_of(model, model.policy(folders(model), parameters, dtype="bfloat16"))
        assert near.dtype == torch.float32
        torch.testing.assert_close(near, exact, rtol=0, atol=0.1)


def test_decoding_in_parts(model: Case, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = [model.policy(folders(model), decode_pixels=size) for size in (10**6, 2 * 24**2, 1)]
    sizes: list[int] = []
    images = []
    for policy in policies:
        decode = policy.vae.decode

        def counted(latents: Tensor, decode: Any = decode, **options: Any) -> Any:
            sizes.append(len(latents))
            return decode(latents, **options)

        monkeypatch.setattr(policy.vae, "decode", counted)
        images.append(policy.decode(noise_of(policy)))
    assert sizes == [3, 2, 1, 1, 1, 1]
    for parts in images[1:]:
        torch.testing.assert_close(parts, images[0], rtol=0, atol=1e-5)


def test_a_resolution_that_does_not_fit(model: Case, folders: Folders) -> None:
    with pytest.raises(UserError, match="resolution: 20 is not a multiple of 8"):
        model.policy(folders(model), resolution=20)


def test_a_resolution_beyond_the_positions(folders: Folders) -> None:
    SD3.policy(folders(SD3), resolution=512)
    with pytest.raises(UserError, match="resolution: 520 is more than 512"):
        SD3.policy(folders(SD3), resolution=520)


def test_another_models_folder(folders: Folders) -> None:
    for mine, other in ((FLUX, SD3), (SD3, FLUX)):
        with pytest.raises(UserError) as caught:
            mine.policy(folders(other))
        names = [load_model_class(case.kind).PIPELINE for case in (other, mine)]
        assert f"holds a {names[0]}; the model kind '{mine.kind}' needs a {names[1]}" in str(
            caught.value
        )


def test_another_transformer_in_the_folder(folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders(SD3), tmp_path / "policy"))
    shutil.rmtree(folder / "transformer")
    shutil.copytree(folders(FLUX) / "transformer", folder / "transformer")
    with pytest.raises(UserError, match="SD3Transformer2DModel: it holds a FluxTransformer2DModel"):
        SD3.policy(folder)


def test_only_t5_may_be_absent(folders: Folders, tmp_path: Path) -> None:
    for part in ("text_encoder_2", "text_encoder_3", "tokenizer_3"):
        folder = Path(shutil.copytree(folders(SD3), tmp_path / part))
        shutil.rmtree(folder / part)
        with pytest.raises(UserError, match=f"missing {part}"):
            SD3.policy(folder)


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
