"""Whoever only decodes reads no weights of a transformer, and gets the same samples."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pipeline_cases import CASES, FLUX, Case, Folders
from wan_cases import WAN_CASES, WanCase, WanFolders

from bpgo.errors import UserError
from bpgo.models.pipeline import PipelinePolicy
from bpgo.registry import load_model_class


def stripped(folder: Path, place: Path) -> Path:
    """A pipeline whose transformers are configurations without weights."""
    found = Path(shutil.copytree(folder, place))
    for file in found.glob("transformer*/*.safetensors*"):
        file.unlink()
    return found


def decoder(policy: PipelinePolicy, folder: Path) -> PipelinePolicy:
    """The same model in `folder`, for decoding alone."""
    settings = policy.settings.model_copy(update={"path": str(folder)})
    found: PipelinePolicy = load_model_class(settings.kind)(
        settings, policy.parameters, decodes_only=True
    )
    return found


def assert_decodes_alike(found: PipelinePolicy, policy: PipelinePolicy) -> None:
    latents = torch.linspace(-1, 1, 2 * int(torch.tensor(policy.latent_shape).prod()))
    latents = latents.view(2, *policy.latent_shape)
    with torch.no_grad():
        assert torch.equal(found.decode(latents), policy.decode(latents))
    assert found.latent_shape == policy.latent_shape
    assert {**found.config, "_name_or_path": None} == {**policy.config, "_name_or_path": None}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_images(case: Case, folders: Folders, tmp_path: Path) -> None:
    policy = case.policy(folders(case))
    assert_decodes_alike(decoder(policy, stripped(folders(case), tmp_path / "policy")), policy)


@pytest.mark.parametrize("case", WAN_CASES.values(), ids=list(WAN_CASES))
def test_clips(case: WanCase, wan_folders: WanFolders, tmp_path: Path) -> None:
    policy = case.policy(wan_folders(case))
    folder = stripped(wan_folders(case), tmp_path / "policy")
    assert_decodes_alike(decoder(policy, folder), policy)


def test_what_does_not_fit_is_told_all_the_same(folders: Folders, tmp_path: Path) -> None:
    policy = FLUX.policy(folders(FLUX))
    folder = stripped(folders(FLUX), tmp_path / "policy")
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace("FluxTransformer2DModel", "Other"))
    with pytest.raises(UserError, match="as FluxTransformer2DModel: it holds a Other"):
        decoder(policy, folder)
    config.write_text("{")
    with pytest.raises(UserError, match=r"config.json: cannot be read"):
        decoder(policy, folder)
