"""Published rewards: batches, remembered texts, settings, and checkpoints that are refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_rewards import HPSV2_FILE, build_tiny_rewards, parity_inputs, reward_of
from torch import Tensor

from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.rewards.hpsv2 import empty_open_clip, open_clip_configuration
from bpgo.rewards.shared.checkpoints import read_state_dict
from bpgo.storage.files import read_json, repository_root

NAMES = ["hpsv2", "pickscore", "clip_score", "aesthetic"]
TEXTS = ["a red circle", "two things", "a red circle", "a red circle", "a shape"]


plain = cache(reward_of)  # as its file says; not to be changed


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rewards")
    build_tiny_rewards(root)
    return root


def samples(texts: list[str] = TEXTS) -> Samples:
    draws = torch.Generator().manual_seed(3)
    return Samples(torch.rand(len(texts), 3, 40, 40, generator=draws), texts)


def refusal(name: str, tiny: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        reward_of(name, tiny, **changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", NAMES)
def test_any_batch_size(name: str, tiny: Path) -> None:
    whole, small = plain(name, tiny), reward_of(name, tiny, batch_size=2)
    torch.testing.assert_close(whole(samples()), small(samples()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_text_is_embedded_once(name: str, tiny: Path) -> None:
    reward: Any = reward_of(name, tiny)
    seen: list[str] = []
    real = reward.embed_text
    reward.embed_text = lambda text: (seen.append(text), real(text))[1]
    first = reward(samples())
    assert torch.equal(reward(samples()), first)
    assert seen == ["a red circle", "two things", "a shape"]


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_score_does_not_depend_on_earlier_ones(name: str, tiny: Path) -> None:
    """To the bit: a resumed run starts with no text in memory."""
    used, fresh = reward_of(name, tiny), reward_of(name, tiny)
    used(samples(["a blue square", "two things"]))
    assert torch.equal(used(samples()), fresh(samples()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_dtypes(name: str, dtype: str, tiny: Path) -> None:
    exact = plain(name, tiny)(samples())
    found = reward_of(name, tiny, dtype=dtype)(samples())
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    bound = 0.1 if dtype == "bfloat16" else 0.02
    assert (found - exact).abs().max() < bound * max(1.0, float(exact.abs().max()))


def test_scales(tiny: Path) -> None:
    inputs = samples()
    paper = plain("pickscore", tiny)(inputs)
    card = reward_of("pickscore", tiny, divisor=1)(inputs)
    torch.testing.assert_close(card, 100 * paper)
    cosine = plain("clip_score", tiny)(inputs)
    metrics = reward_of("clip_score", tiny, scale=100, clip_at_zero=True)(inputs)
    assert (cosine < 0).any()
    torch.testing.assert_close(metrics, 100 * cosine.clamp(min=0))


def test_the_official_package_gives_the_same(tiny: Path) -> None:
    """Where it is installed; tests/fixtures/rewards holds its numbers for where it is not."""
    if importlib.util.find_spec("hpsv2") is None:
        pytest.skip("hpsv2 is not installed; it has an environment of its own")
    found, official = plain("hpsv2", tiny), reward_of("hpsv2_official", tiny)
    kept = read_json(repository_root() / "tests" / "fixtures" / "rewards" / "hpsv2.json")
    for image, text, score in zip(*parity_inputs(), kept["scores"], strict=True):
        one = Samples(image[None], [text])
        ours, theirs = found(one), official(one)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        assert float(theirs) == pytest.approx(score, abs=1e-6)


def test_the_official_package_is_missing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hpsv2", "hpsv2.src.open_clip"):
        monkeypatch.setitem(sys.modules, name, None)
    message = refusal("hpsv2_official", tiny)
    assert "import of hpsv2" in message
    assert "workflow/envs/hpsv2.yaml" in message
    assert "--use-conda" in message


def test_the_published_architecture() -> None:
    """ViT-H-14 as xswu/HPSv2 holds it, without its four gigabytes."""
    model, tokenize = empty_open_clip(open_clip_configuration("ViT-H-14", "reward 'x'"))
    assert all(value.is_meta for value in model.parameters())
    assert sum(value.numel() for value in model.parameters()) == 986_109_441
    assert tokenize(["a"]).shape == (1, 77)


@pytest.mark.parametrize("name", ["hpsv2", "aesthetic"])
def test_no_such_file(name: str, tiny: Path) -> None:
    assert "there is no file or folder '/nowhere/a.pt'" in refusal(name, tiny, path="/nowhere/a.pt")


@pytest.mark.parametrize("name", ["pickscore", "clip_score"])
def test_no_such_folder(name: str, tiny: Path) -> None:
    assert "there is no file or folder '/nowhere'" in refusal(name, tiny, path="/nowhere")


def test_another_file_than_the_digest_says(tiny: Path) -> None:
    message = refusal("hpsv2", tiny, sha256="0" * 64)
    assert "the file is another one, or is damaged" in message


@pytest.mark.parametrize("name", ["hpsv2", "aesthetic"])
def test_another_models_checkpoint(name: str, tiny: Path) -> None:
    other = {
        "hpsv2": "aesthetic/sac+logos+ava1-l14-linearMSE.pth",
        "aesthetic": "hpsv2/" + HPSV2_FILE,
    }
    message = refusal(name, tiny, path=str(tiny / other[name]))
    assert "is not its checkpoint" in message
    assert "such as:" in message


def test_a_damaged_checkpoint(tiny: Path, tmp_path: Path) -> None:
    whole = (tiny / "hpsv2" / HPSV2_FILE).read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    assert "half.pt" in refusal("hpsv2", tiny, path=str(tmp_path / "half.pt"))


@pytest.mark.parametrize("content", ["{}", "not JSON", "[1]"])
def test_an_architecture_that_is_none(content: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    message = refusal("hpsv2", tiny, architecture=str(tmp_path / "a.json"))
    assert "is not a configuration of open_clip" in message
    assert "open_clip knows no 'ViT-Z'" in refusal("hpsv2", tiny, architecture="ViT-Z")


@pytest.fixture
def spoilt(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny PickScore, to be spoilt."""
    return Path(shutil.copytree(tiny / "pickscore", tmp_path / "pickscore"))


def change_weights(folder: Path, change: Any) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_constants_of_older_files_are_no_mistake(tiny: Path, spoilt: Path) -> None:
    def change(state: dict[str, Tensor]) -> None:
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        state["vision_model.embeddings.position_ids"] = torch.arange(5)[None]

    change_weights(spoilt, change)
    found = reward_of("pickscore", tiny, path=str(spoilt))(samples())
    torch.testing.assert_close(found, plain("pickscore", tiny)(samples()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("logit_scale"), "logit_scale is missing"),
        (lambda state: state.update(head=torch.ones(2)), "head is unknown"),
        (
            lambda state: state.update({"text_projection.weight": torch.ones(3, 16)}),
            "text_projection.weight has another shape",
        ),
    ],
)
def test_a_clip_that_does_not_fit(change: Any, words: str, tiny: Path, spoilt: Path) -> None:
    change_weights(spoilt, change)
    message = refusal("pickscore", tiny, path=str(spoilt))
    assert "is not its checkpoint: 1 tensors do not fit" in message
    assert words in message


def test_a_folder_of_another_model(tiny: Path, spoilt: Path) -> None:
    config = json.loads((spoilt / "config.json").read_text())
    (spoilt / "config.json").write_text(json.dumps({**config, "model_type": "t5"}))
    assert "model_type 't5'" in refusal("pickscore", tiny, path=str(spoilt))
    (spoilt / "config.json").unlink()
    assert "is not a CLIP" in refusal("pickscore", tiny, path=str(spoilt))


def test_a_folder_without_weights_or_tokenizer(tiny: Path, spoilt: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (spoilt / name).unlink()
    assert "holds no tokenizer" in refusal("pickscore", tiny, processor=str(spoilt))
    (spoilt / "model.safetensors").write_bytes(b"half")
    assert "cannot be read as a CLIP" in refusal("clip_score", tiny, path=str(spoilt))
    (spoilt / "model.safetensors").unlink()
    assert "cannot be read as a CLIP" in refusal("clip_score", tiny, path=str(spoilt))


def test_weights_are_read_as_tensors_only(tiny: Path, tmp_path: Path) -> None:
    state = read_state_dict(tiny / "hpsv2" / HPSV2_FILE, "tiny")
    torch.save({"state_dict": state, "extra": Path("x")}, tmp_path / "a.pt")
    assert "is refused" in refusal("hpsv2", tiny, path=str(tmp_path / "a.pt"))
