"""The port gives the official package's scores; other files than ImageReward's are refused.

`tests/fixtures/rewards/make_image_reward.py` wrote the official scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rewards.make_image_reward import PROMPTS, make_image
from tiny_image_reward import build_tiny_image_reward, image_reward_overrides

from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.rewards import load_reward
from bpgo.rewards.image_reward import ImageReward, ImageRewardSettings
from bpgo.rewards.shared.checkpoints import read_state_dict
from bpgo.storage.files import repository_root

OFFICIAL = json.loads(
    (repository_root() / "tests" / "fixtures" / "rewards" / "image_reward.json").read_text()
)
IMAGES = [torch.from_numpy(make_image(k)).permute(2, 0, 1) / 255 for k in range(len(PROMPTS))]


def settings_of(folder: Path, **changes: Any) -> ImageRewardSettings:
    return ImageRewardSettings(title="tiny", **{**image_reward_overrides(folder), **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint; read only."""
    return build_tiny_image_reward(tmp_path_factory.mktemp("image_reward"))


@pytest.fixture(scope="module")
def reward(folder: Path) -> ImageReward:
    return ImageReward(settings_of(folder))


@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_scores_are_the_official_ones(reward: ImageReward, index: int) -> None:
    """The weights are large, so that the sixth digit of a score shows every other pixel."""
    found = reward(Samples(IMAGES[index][None], [PROMPTS[index]]))
    expected = torch.tensor([OFFICIAL["scores"][index]])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


def test_official_scores_tell_images_and_prompts_apart(reward: ImageReward) -> None:
    """Else parity would say little: with small random weights every score is the same."""
    assert torch.tensor(OFFICIAL["scores"]).std() > 0.5
    together = reward(Samples(IMAGES[0].expand(len(PROMPTS), -1, -1, -1), PROMPTS))
    assert together[:5].std() > 0.1
    assert together[0] == together[5]  # the same prompt


def test_tokens_are_the_official_ones(reward: ImageReward) -> None:
    ids, mask = reward._tokens(PROMPTS)
    assert ids.shape == mask.shape == (len(PROMPTS), 35)
    found = [" ".join(str(int(k)) for k in row if k) for row in ids]
    assert found == OFFICIAL["tokens"]
    assert torch.equal(mask, (ids != 0).long())


def test_batches_do_not_matter(folder: Path, reward: ImageReward) -> None:
    samples = Samples(torch.stack([IMAGES[0]] * 5), PROMPTS[:5])
    small = ImageReward(settings_of(folder, batch_size=2))
    torch.testing.assert_close(small(samples), reward(samples), rtol=1e-5, atol=1e-5)


def test_bfloat16_moves_scores_a_little(folder: Path, reward: ImageReward) -> None:
    samples = Samples(torch.stack([IMAGES[0]] * 5), PROMPTS[:5])
    half = ImageReward(settings_of(folder, dtype="bfloat16"))(samples)
    assert half.dtype == torch.float32
    assert not torch.equal(half, reward(samples))
    torch.testing.assert_close(half, reward(samples), rtol=0.05, atol=0.3)


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blip.visual_encoder.patch_embed.proj.weight"), "no such tensor"),
        (lambda state: state.pop("blip.text_encoder.encoder.layer.1.output.dense.bias"), "missing"),
        (lambda state: state.update({"mlp.layers.9.weight": torch.ones(1)}), "unknown"),
        (lambda state: state.update({"mlp.layers.7.bias": torch.ones(2)}), "has shape"),
    ],
)
def test_another_checkpoint_is_refused(
    folder: Path, tmp_path: Path, change: Change, message: str
) -> None:
    state = read_state_dict(folder / "ImageReward.pt", "reward 'tiny'")
    change(state)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UserError, match=rf"reward 'tiny': .*other.pt .*{message}"):
        ImageReward(settings_of(folder, path=str(tmp_path / "other.pt")))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "no key 'vocab_size'"), ("[", "cannot be read"), ("[]", "cannot be read")],
)
def test_a_broken_configuration_is_named(
    folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "med_config.json").write_text(text)
    with pytest.raises(UserError, match=rf"reward 'tiny': .*med_config.json .*{message}"):
        ImageReward(settings_of(folder, config=str(tmp_path / "med_config.json")))


def test_a_tokenizer_without_its_words_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reward 'tiny': tokenizer: there is no vocab.txt in"):
        ImageReward(settings_of(folder, tokenizer=str(tmp_path)))


def test_the_package_in_the_wrong_environment_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bpgo.rewards import image_reward_official

    values = settings_of(folder).model_dump()
    values |= {"kind": "image_reward_official", "environment": "image_reward"}
    settings = image_reward_official.OfficialSettings.model_validate(values)

    def absent() -> None:
        raise ModuleNotFoundError("No module named 'ImageReward'", name="ImageReward")

    monkeypatch.setattr(image_reward_official, "_package", absent)
    with pytest.raises(UserError) as caught:
        load_reward(settings)
    assert "No module named 'ImageReward'" in str(caught.value)
    assert "workflow/envs/image_reward.yaml" in str(caught.value)
    assert "--use-conda" in str(caught.value)
