"""What training leaves behind: a policy that earns more, saved as diffusers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tiny_world import CAPTIONS, make_trainer, random_embeddings, redness, same, trained, weights
from torch import Tensor

from bpgo.core.rollout import initial_noise, sample
from bpgo.core.trainer import Trainer
from bpgo.records import Samples

ADAPTER: dict[str, Any] = {"model": {"lora": {"rank": 2}}, "training": {"parameters": "lora"}}


def test_training_raises_its_reward(tiny_folder: Path, tmp_path: Path) -> None:
    """The sign of the whole chain: rollout, advantage, ratio, loss, optimizer."""

    def opposite(samples: Samples) -> Tensor:
        return -redness(samples)

    def earned(trainer: Trainer) -> float:
        policy, embeddings = trainer.policy, random_embeddings(6)
        noise = initial_noise(policy.latent_shape, 5, "evaluation", [("p", k) for k in range(6)])
        images = torch.cat([*sample(policy, embeddings, noise, policy.sigmas(4))])
        return float(redness(Samples(images, CAPTIONS)).mean())

    options: dict[str, Any] = {
        "training": {"iterations": 8, "learning_rate": 5e-3},
        "arm_changes": {"clip_range": 0.2, "shared_initial_noise": False},
    }
    before = earned(make_trainer(tiny_folder, tmp_path / "untrained", **options))
    raised = earned(trained(tiny_folder, tmp_path / "raised", **options))
    lowered = earned(trained(tiny_folder, tmp_path / "lowered", reward=opposite, **options))
    assert lowered < before < raised


def test_policy_is_saved_with_its_average(tiny_folder: Path, tmp_path: Path) -> None:
    trainer = trained(tiny_folder, tmp_path, training={"ema_decay": 0.9, "ema_every": 1})
    average = trainer.averages["judged"]
    before = {name: value.clone() for name, value in weights(trainer).items()}
    trainer.save_policy(tmp_path / "policy")
    saved = load_file(tmp_path / "policy" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert same(saved, average.average)
    assert not same(saved, before)
    assert same(weights(trainer), before)
    snapshot = tmp_path / "snapshots" / "iteration_000002" / "transformer"
    assert (snapshot / "diffusion_pytorch_model.safetensors").is_file()


def test_an_adapter_is_what_diffusers_loads(tiny_folder: Path, tmp_path: Path) -> None:
    from diffusers import FluxPipeline

    options = ADAPTER | {"training": {"parameters": "lora", "learning_rate": 0.05}}
    trainer = trained(tiny_folder, tmp_path, **options)
    trainer.save_policy(tmp_path / "policy")
    policy, embeddings = trainer.policy, random_embeddings(3)
    noise = initial_noise(policy.latent_shape, 1, "evaluation", [("p", k) for k in range(3)])
    (ours,) = sample(policy, embeddings, noise, policy.sigmas(3))

    pipeline = FluxPipeline.from_pretrained(tiny_folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def theirs() -> Tensor:
        return pipeline(
            prompt_embeds=embeddings.tokens,
            pooled_prompt_embeds=embeddings.pooled,
            latents=noise,
            num_inference_steps=3,
            height=24,
            width=24,
            output_type="pt",
        ).images

    assert (theirs() - ours).abs().max() > 1e-3
    pipeline.load_lora_weights(tmp_path / "policy")
    torch.testing.assert_close(ours, theirs(), rtol=1e-5, atol=1e-5)


def test_base_weights_stay_under_an_adapter(tiny_folder: Path, tmp_path: Path) -> None:
    trainer = trained(tiny_folder, tmp_path, **ADAPTER)
    fixed = dict(make_trainer(tiny_folder, tmp_path / "new").policy.transformer.named_parameters())
    for name, value in trainer.policy.transformer.named_parameters():
        if "lora_" not in name:
            assert torch.equal(value, fixed[name.replace(".base_layer", "")])
    assert all("lora_" in name for name in trainer.parameters)
