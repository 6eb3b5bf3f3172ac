"""VideoAlign: the numbers of the wrapped model that its authors train, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_video_rewards import (
    CHECKPOINT,
    build_tiny_videoalign,
    clips,
    model_config,
    video_reward_of,
    wrapped_qwen2_vl,
)
from torch import Tensor

from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.rewards import videoalign
from bpgo.rewards.shared.checkpoints import read_state_dict
from bpgo.rewards.shared.clip_frames import evenly

TEXTS = ["two things", "two things", "", "a <|TA_reward|> and a blue square"]
STATISTICS = {"vq": (3.6757, 2.2476), "mq": (1.1646, 1.3811), "ta": (2.8105, 2.5121)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videoalign")
    build_tiny_videoalign(root / "videoalign")
    return root


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videoalign, "_judged", {})


def reward_of(root: Path, output: str = "ta", **changes: Any) -> Any:
    return video_reward_of("videoalign_ta", root, output=output, **changes)


@pytest.fixture(scope="module")
def published(root: Path) -> Tensor:
    """Raw VQ, MQ, TA [4, 3] as the authors' code finds them: peft's wrapper, one clip at a time.

    Pixels are those of transformers' video processor, positions 0, 1, 2, ...
    """
    from transformers import AutoTokenizer, Qwen2VLVideoProcessor

    tokenizer = AutoTokenizer.from_pretrained(root / "videoalign" / "base")
    wrapped = wrapped_qwen2_vl(len(tokenizer)).base_model.model
    tokenizer.add_tokens(list(videoalign.TOKENS), special_tokens=True)
    reward = reward_of(root)
    process, grid = Qwen2VLVideoProcessor(cap_pixels_per_frame=True), reward.grid()
    rows = []
    for clip, text in zip(clips(), TEXTS, strict=True):
        frames = grid.levels(clip[None, evenly(len(clip), 4)])[0]
        video = process([frames], do_resize=False, return_tensors="pt")
        count = int(video["video_grid_thw"].prod()) // 4
        ids = tokenizer([reward.prompt(text, count)], return_tensors="pt").input_ids
        with torch.no_grad():
            hidden = wrapped.model(
                input_ids=ids,
                position_ids=torch.arange(ids.shape[1]).expand(3, 1, -1),
                pixel_values_videos=video["pixel_values_videos"],
                video_grid_thw=video["video_grid_thw"],
            ).last_hidden_state
            logits = wrapped.rm_head(hidden)[0, :, 0]
        marks = [tokenizer.convert_tokens_to_ids(token) for token in videoalign.TOKENS]
        places = [(ids[0] == mark).nonzero().flatten() for mark in marks]
        rows.append(logits[torch.stack([places[0][0], places[1][0], places[2][-1]])])
    return torch.stack(rows)


@pytest.mark.parametrize("output", list(STATISTICS))
def test_each_output_is_the_published_one(root: Path, output: str, published: Tensor) -> None:
    raw = published[:, list(STATISTICS).index(output)]
    assert raw.std() > 0.05
    assert (raw[0] - raw[1]).abs() > 0.01  # the same text
    plain = reward_of(root, output, standardize=False)(Samples(clips(), TEXTS))
    torch.testing.assert_close(plain, raw, rtol=1e-4, atol=1e-4)
    mean, std = STATISTICS[output]
    found = reward_of(root, output)(Samples(clips(), TEXTS))
    torch.testing.assert_close(found * std + mean, raw, rtol=1e-4, atol=1e-4)


def test_overall_is_the_sum(root: Path) -> None:
    parts = [reward_of(root, output)(Samples(clips(), TEXTS)) for output in STATISTICS]
    overall = video_reward_of("videoalign_overall", root)(Samples(clips(), TEXTS))
    torch.testing.assert_close(overall, torch.stack(parts).sum(dim=0))


def test_the_question_is_the_authors() -> None:
    text = videoalign.template()
    assert text.startswith("\nYou are tasked with evaluating a generated video")
    assert text.endswith(
        "\nTextual prompt - {text_prompt}\nPlease provide the ratings of Text"
        " Alignment: <|TA_reward|>\nEND\n"
    )
    assert [text.count(token) for token in videoalign.TOKENS] == [1, 1, 1]
    assert text.count("  \n") == 4  # the authors' spaces at the ends of lines
    assert len(text) == 3997


def test_two_outputs_cost_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model in memory, and one look at each clip, even after the first reward is gone."""
    from bpgo.rewards.shared.videoalign_model import RewardModel

    seen: list[int] = []
    call = RewardModel.__call__

    def counted(self: RewardModel, ids: Tensor, *others: Any) -> Tensor:
        seen.append(len(ids))
        return call(self, ids, *others)

    monkeypatch.setattr(RewardModel, "__call__", counted)
    first, second = reward_of(root, "ta"), reward_of(root, "overall")
    assert first._model is second._model
    samples = Samples(clips(), TEXTS)
    first(samples)
    second(samples)
    assert seen == [4]
    del first, second
    later = reward_of(root, "vq")
    assert later._model is None  # it needs none for what is remembered
    later(samples)
    assert seen == [4]
    later(Samples(clips(), TEXTS[::-1]))
    assert sum(seen) > 4


def test_any_batch_size(root: Path) -> None:
    whole = reward_of(root)(Samples(clips(), TEXTS))
    videoalign._judged.clear()
    torch.testing.assert_close(reward_of(root, batch_size=1)(Samples(clips(), TEXTS)), whole)


def test_dtypes(root: Path) -> None:
    exact = reward_of(root)(Samples(clips(), TEXTS))
    rounded = reward_of(root, dtype="bfloat16")(Samples(clips(), TEXTS))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1)


def test_frames(root: Path) -> None:
    """Of 16 frames a second it sees two, at least four; the clip's own rate counts."""
    assert reward_of(root).frames(81) == evenly(81, 10)
    assert reward_of(root, clip_fps=24).frames(81) == evenly(81, 6)
    assert reward_of(root, fps=4).frames(81) == evenly(81, 20)
    changed, texts = clips(2), TEXTS[:2]
    changed[:, 1] = 0.5
    assert torch.equal(
        reward_of(root)(Samples(changed, texts)), reward_of(root)(Samples(clips(2), texts))
    )
    still = reward_of(root)(Samples(clips(2)[:, :1], texts))
    assert torch.equal(still, reward_of(root)(Samples(clips(2)[:, [0, 0]], texts)))


@pytest.fixture
def spoilt(root: Path, tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(root / "videoalign", tmp_path / "videoalign"))


def refusal(root: Path, folder: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        reward_of(root, **{"path": str(folder), "base": str(folder / "base"), **changes})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_files(root: Path, spoilt: Path) -> None:
    assert "there is no file or folder '/nowhere/checkpoint-11352/model.pth'" in refusal(
        root, Path("/nowhere")
    )
    assert "there is no file or folder" in refusal(root, spoilt, checkpoint="checkpoint-1")
    assert "another one, or is damaged" in refusal(root, spoilt, sha256="0" * 64)
    (spoilt / "model_config.json").unlink()
    assert "model_config.json'" in refusal(root, spoilt)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.pop("inference_config"), "no key 'inference_config'"),
        (lambda config: config["peft_lora_config"].update(lora_r="many"), "cannot be read"),
        (lambda config: config["model_config"].update({"reward_token": "last"}), "only the prompt"),
        (lambda config: config["data_config"].update(sample_type="multi_pts"), "only the prompt"),
    ],
)
def test_other_configurations(root: Path, spoilt: Path, change: Any, words: str) -> None:
    config = model_config()
    change(config)
    (spoilt / "model_config.json").write_text(json.dumps(config))
    assert words in refusal(root, spoilt)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("base_model.model.rm_head.weight"), "no rm_head.weight"),
        (
            lambda state: state.pop(
                "base_model.model.model.layers.1.mlp.up_proj.base_layer.weight"
            ),
            "language_model.layers.1.mlp.up_proj.weight is missing",
        ),
        (lambda state: state.update(more=torch.ones(1)), "more is unknown"),
    ],
)
def test_other_checkpoints(root: Path, spoilt: Path, change: Any, words: str) -> None:
    file = spoilt / CHECKPOINT / "model.pth"
    state = dict(read_state_dict(file, "tiny"))
    change(state)
    torch.save(state, spoilt / CHECKPOINT / "new.pth")
    (spoilt / CHECKPOINT / "new.pth").replace(file)
    message = refusal(root, spoilt)
    assert "is not its checkpoint" in message
    assert words in message


def test_other_bases(root: Path, spoilt: Path) -> None:
    config = json.loads((spoilt / "base" / "config.json").read_text())
    (spoilt / "base" / "config.json").write_text(json.dumps({**config, "model_type": "qwen3_vl"}))
    assert "model_type 'qwen3_vl', 'qwen2_vl' is expected" in refusal(root, spoilt)
    (spoilt / "base" / "tokenizer.json").unlink()
    assert "holds no tokenizer" in refusal(root, spoilt)


def test_images_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="'VideoAlign TA' scores clips, but it was given images"):
        reward_of(root)(Samples(clips(2, 1).squeeze(1), TEXTS[:2]))


def test_the_published_file_holds_these_tensors() -> None:
    """Qwen2-VL-2B with 151660 words, its LoRA, both heads, two bytes a number: 5,031,072,529."""
    from tiny_video_rewards import qwen2_vl_config
    from transformers import Qwen2VLConfig

    from bpgo.rewards.shared.qwen_vl import build

    text = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151_660}
    vision = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_size": 1536}
    values = qwen2_vl_config(1000)
    values["rope_scaling"] = {"type": "mrope", "mrope_section": [16, 24, 24]}
    values |= {**text, **heads, "vision_config": {**values["vision_config"], **vision}}
    model = build("Qwen2VLModel", Qwen2VLConfig.from_dict(values))
    sizes = {name: value.shape for name, value in model.named_parameters()}
    numbers = sum(shape.numel() for shape in sizes.values())
    targets = [v for k, v in sizes.items() if k.startswith("language_") and "_proj.weight" in k]
    assert len(targets) == 28 * 7
    numbers += sum(64 * sum(shape) for shape in targets)  # A and B of rank 64
    numbers += 1536 * (151_660 + 1)  # of words and of the reward
    names = 5_031_072_529 - 2 * numbers  # what the file holds besides
    assert 0 < names < 400_000
