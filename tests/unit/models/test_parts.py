"""Pipelines in pieces: shards, missing ones, parts of another model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_cases import FLUX, PROMPTS, SD3, Case, Folders, disturb, images_of

from bpgo.errors import UserError
from bpgo.models.pipeline import PipelinePolicy
from bpgo.registry import load_model_class


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


# What the two repositories hold, as their pages list it; weights in several formats and precisions.
PUBLISHED = {
    "model_index.json": True,
    "README.md": False,
    "flux1-dev.safetensors": False,
    "sd3.5_medium.safetensors": False,
    "text_encoders/t5xxl_fp16.safetensors": False,
    "scheduler/scheduler_config.json": True,
    "transformer/config.json": True,
    "transformer/diffusion_pytorch_model.safetensors": True,
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors": True,
    "transformer/diffusion_pytorch_model.safetensors.index.json": True,
    "vae/diffusion_pytorch_model.safetensors": True,
    "text_encoder/model.safetensors": True,
    "text_encoder/model.fp16.safetensors": False,
    "text_encoder/pytorch_model.bin": False,
    "text_encoder_2/model-00001-of-00002.safetensors": True,
    "text_encoder_2/model.fp16-00001-of-00002.safetensors": False,
    "text_encoder_2/model.safetensors.index.json": True,
    "tokenizer/merges.txt": True,
    "tokenizer_2/spiece.model": True,
}


def test_the_hub_is_asked_for_what_is_needed(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(folders(FLUX))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    policy = FLUX.policy(Path("owner/name"), revision="c" * 40)
    assert (asked["name"], asked["revision"]) == ("owner/name", "c" * 40)
    chosen = set(filter_repo_objects(PUBLISHED, allow_patterns=asked["allow_patterns"]))
    assert chosen == {file for file, wanted in PUBLISHED.items() if wanted}
    assert policy.folder == folders(FLUX)


def test_what_the_cache_has_only_in_part(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    part = Path(shutil.copytree(folders(FLUX), tmp_path / "part"))
    shutil.rmtree(part / "text_encoder_2")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(part))
    with pytest.raises(UserError, match="not a FluxPipeline folder: missing text_encoder_2"):
        FLUX.policy(Path("owner/name"), revision="c" * 40)


def test_weights_that_could_run_code_are_refused(folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders(SD3), tmp_path / "policy"))
    for part, stem in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
        file = folder / part / f"{stem}.safetensors"
        torch.save({}, file.with_name(f"{stem.replace('model', 'pytorch_model')}.bin"))
        torch.save({}, file.with_suffix(".bin"))
        kept = file.read_bytes()
        file.unlink()
        with pytest.raises(UserError, match=f"{part}: cannot be loaded"):
            SD3.policy(folder).encode_prompts(PROMPTS)
        file.write_bytes(kept)
