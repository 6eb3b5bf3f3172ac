"""The Wan adapter against the pipelines it was taken from: prompts in, clips out, both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pipeline_cases import disturb
from wan_cases import (
    I2V,
    SIZE,
    STEPS,
    T2V,
    TI2V,
    TWO_I2V,
    WAN_CASES,
    WAN_PROMPTS,
    WanCase,
    WanFolders,
    assert_same_clips,
    clips_of,
    clips_of_pipeline,
    wan_embeddings,
    wan_noise,
)

from bpgo.models.text import cleaned


@pytest.fixture(scope="module", params=WAN_CASES)
def wan(request: pytest.FixtureRequest) -> WanCase:
    return WAN_CASES[request.param]


def test_our_sampler_is_the_pipelines(
    wan: WanCase, wan_folders: WanFolders, first_frames: list[Path]
) -> None:
    folder = wan_folders(wan)
    policy = wan.policy(folder)
    ours = clips_of(wan, policy, first_frames)
    assert ours.shape == (3, 5, 3, SIZE["resolution"], SIZE["width"])
    assert 0 <= ours.min() <= ours.max() <= 1
    pipeline, noise = wan.pipeline(folder, policy), wan_noise(policy)
    assert torch.equal(policy.sigmas(STEPS), pipeline.scheduler.sigmas)
    assert_same_clips(ours, clips_of_pipeline(wan, pipeline, noise, first_frames))


def test_embeddings_are_the_pipelines(wan_folders: WanFolders) -> None:
    folder, long = wan_folders(T2V), "long " * 100
    policy = T2V.policy(folder, negative_prompt="blurred  &amp; dull")
    found = policy.encode_prompts([*WAN_PROMPTS, long])
    pipeline = T2V.pipeline(folder, policy)
    with torch.no_grad():
        tokens, negative = pipeline.encode_prompt(
            [*WAN_PROMPTS, long], ["blurred  &amp; dull"] * 4, max_sequence_length=T2V.tokens
        )
    assert found.negative_tokens is not None
    torch.testing.assert_close(found.tokens, tokens, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.negative_tokens, negative[:1], rtol=1e-5, atol=1e-6)
    assert found.tokens[2, -1].eq(0).all()  # padding
    assert found.tokens[3, -1].ne(0).all()
    assert found.pooled is found.condition is found.image_tokens is None


@pytest.mark.parametrize("case", [I2V, TWO_I2V, TI2V], ids=["2.1", "2.2", "2.2 ti2v"])
def test_the_first_frame_decides(
    case: WanCase, wan_folders: WanFolders, first_frames: list[Path]
) -> None:
    policy = case.policy(wan_folders(case))
    plain = clips_of(case, policy, first_frames)
    turned = clips_of(case, policy, first_frames[1:] + first_frames[:1])
    same = policy.encode_prompts(WAN_PROMPTS, [first_frames[0]] * 3)
    assert (plain - turned).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-3
    assert same.condition is not None
    assert torch.equal(same.condition[0], same.condition[2])


def test_what_follows_a_first_frame_is_mid_grey(
    wan_folders: WanFolders, first_frames: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, clips = I2V.policy(wan_folders(I2V)), []
    encode = policy.vae.encode
    monkeypatch.setattr(policy.vae, "encode", lambda clip: clips.append(clip) or encode(clip))
    found = policy.encode_prompts(WAN_PROMPTS[:1], first_frames[:1]).condition
    (clip,) = clips
    assert clip.shape == (1, 3, 5, SIZE["resolution"], SIZE["width"])
    assert clip[:, :, 0].min() < -0.5 < 0.5 < clip[:, :, 0].max()  # the image, in [-1, 1]
    assert clip[:, :, 1:].eq(0).all()
    assert found is not None
    assert found[:, :4, 0].eq(1).all()  # the mask: only the first latent frame is given
    assert found[:, :4, 1:].eq(0).all()


def test_a_given_first_frame_arrives(wan_folders: WanFolders, first_frames: list[Path]) -> None:
    """Where the first latents are given, a sample ends in them, and no weight moves them."""
    policy = TI2V.policy(wan_folders(TI2V))
    prompts, latents = wan_embeddings(TI2V, policy, first_frames), wan_noise(policy)
    given, sigmas = prompts.condition, policy.sigmas(STEPS)
    assert given is not None
    assert given.dtype == torch.float32
    velocity = policy.velocity(latents, sigmas[2].expand(3), prompts, 5.0)
    disturb(policy)
    moved = policy.velocity(latents, sigmas[2].expand(3), prompts, 5.0)
    assert torch.equal(velocity[:, :, 0], moved[:, :, 0])
    assert not torch.equal(velocity[:, :, 1], moved[:, :, 1])
    arrived = latents[:, :, :1] - sigmas[2] * velocity[:, :, :1]
    torch.testing.assert_close(arrived, given, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [T2V, I2V], ids=["t2v", "i2v"])
def test_an_adapter_serves_the_pipeline(
    case: WanCase, wan_folders: WanFolders, first_frames: list[Path], tmp_path: Path
) -> None:
    policy = case.policy(wan_folders(case))
    before = clips_of(case, policy, first_frames)
    disturb(policy)
    policy.save(tmp_path)
    ours = clips_of(case, policy, first_frames)
    assert (ours - before).abs().max() > 0.01
    pipeline = case.pipeline(wan_folders(case), policy)
    pipeline.load_lora_weights(tmp_path)
    theirs = clips_of_pipeline(case, pipeline, wan_noise(policy), first_frames)
    assert_same_clips(ours, theirs)


def test_full_weights_serve_the_pipeline(
    wan_folders: WanFolders, first_frames: list[Path], tmp_path: Path
) -> None:
    policy = T2V.policy(wan_folders(T2V), "full")
    disturb(policy, 0.02)
    policy.save(tmp_path)
    pipeline = T2V.pipeline(wan_folders(T2V), policy)
    kind = type(pipeline.transformer)
    pipeline.register_modules(transformer=kind.from_pretrained(tmp_path / "transformer"))
    theirs = clips_of_pipeline(T2V, pipeline, wan_noise(policy), first_frames)
    assert_same_clips(clips_of(T2V, policy, first_frames), theirs)


def test_another_shift(wan_folders: WanFolders) -> None:
    from diffusers import UniPCMultistepScheduler

    policy = T2V.policy(wan_folders(T2V), flow_shift=8.0)
    other = UniPCMultistepScheduler.from_pretrained(
        wan_folders(T2V), subfolder="scheduler", flow_shift=8.0
    )
    other.set_timesteps(STEPS)
    assert torch.equal(policy.sigmas(STEPS), other.sigmas)
    euler = WAN_CASES["euler, no guidance"]
    shifted = euler.policy(wan_folders(euler), flow_shift=2.0).sigmas(STEPS)
    assert shifted[1] < euler.policy(wan_folders(euler)).sigmas(STEPS)[1]


@pytest.mark.parametrize("text", ["  a  cat\n&amp;amp; a dog ", "plain", "", "&lt;b&gt;\u00a0x"])
def test_prompts_are_cleaned_as_in_diffusers(text: str) -> None:
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    assert cleaned(text) == prompt_clean(text)
