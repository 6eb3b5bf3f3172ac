"""What does not fit a Wan model is told in one message, before weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from wan_cases import I2V, T2V, TI2V, TWO_I2V, TWO_T2V, WAN_PROMPTS, WanCase, WanFolders, wan_noise

from bpgo.errors import UserError
from bpgo.models import pipeline


@pytest.fixture(autouse=True)
def _no_weights(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "early" in request.node.name:
        monkeypatch.setattr(pipeline, "load_model", lambda *_: pytest.fail("weights were read"))


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        (T2V, {"task": "t2i"}, "task: t2i: a model of kind 'wan' can do t2v or i2v"),
        (T2V, {"task": "i2v"}, "task: i2v: .* can do t2v only: .* has 4 input channels"),
        (I2V, {"task": "t2v"}, "task: t2v: .* can do i2v only: .* has 12 input channels"),
        (T2V, {"boundary": 0.5}, "boundary: 0.5: there is one transformer"),
        (I2V, {"prompt_tokens": 12}, "prompt_tokens: 12: .* needs 512"),
        (TWO_T2V, {"parameters": "full"}, "training.parameters: full: .* set .* to lora"),
    ],
)
def test_early(
    case: WanCase, changes: dict[str, Any], message: str, wan_folders: WanFolders
) -> None:
    with pytest.raises(UserError, match=rf"model 'tiny': {message}"):
        case.policy(wan_folders(case), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 6}, "frames: 6 does not fit: a clip has 4 k \\+ 1 frames, such as 5 or 9"),
        ({"resolution": 20}, "resolution: 20 is not a multiple of 8"),
        ({"width": 36}, "width: 36 is not a multiple of 8"),
        ({"resolution": 264}, "resolution: 264 is more than 256"),
    ],
)
def test_sizes(changes: dict[str, Any], message: str, wan_folders: WanFolders) -> None:
    with pytest.raises(UserError, match=message):
        T2V.policy(wan_folders(T2V), **changes)


@pytest.mark.parametrize(("part", "key"), [("transformer", "in_channels"), ("vae", "z_dim")])
def test_early_a_key_that_is_gone(
    part: str, key: str, wan_folders: WanFolders, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(wan_folders(T2V), tmp_path / "policy"))
    (folder / part / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"{part}/config.json: has no '{key}'"):
        T2V.policy(folder)


def test_the_boundary(wan_folders: WanFolders, tmp_path: Path) -> None:
    for wrong in (0, 1, 1.5):
        with pytest.raises(ValueError, match="boundary"):
            TWO_T2V.policy(wan_folders(TWO_T2V), boundary=wrong)
    folder = Path(shutil.copytree(wan_folders(TWO_T2V), tmp_path / "policy"))
    file = folder / "model_index.json"
    index = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**index, "boundary_ratio": None}), encoding="utf-8")
    with pytest.raises(UserError, match="has no boundary_ratio"):
        TWO_T2V.policy(folder)
    assert TWO_T2V.policy(folder, boundary=0.4).boundary == 0.4
    assert T2V.policy(wan_folders(T2V)).boundary is None


def test_a_pair_of_scales_is_for_two_experts(wan_folders: WanFolders) -> None:
    policy = T2V.policy(wan_folders(T2V))
    prompts = policy.encode_prompts(WAN_PROMPTS)
    with pytest.raises(UserError, match=r"guidance_scale: \[2.0, 1.0\] is for two experts"):
        policy.velocity(wan_noise(policy), torch.full((3,), 0.5), prompts, [2.0, 1.0])


def test_a_missing_part_is_named(wan_folders: WanFolders, tmp_path: Path) -> None:
    for case, part in ((TWO_I2V, "transformer_2"), (I2V, "image_encoder"), (T2V, "tokenizer")):
        folder = Path(shutil.copytree(wan_folders(case), tmp_path / part))
        shutil.rmtree(folder / part)
        with pytest.raises(UserError, match=f"missing {part}"):
            case.policy(folder)


def test_first_frames(wan_folders: WanFolders, first_frames: list[Path], tmp_path: Path) -> None:
    policy = TI2V.policy(wan_folders(TI2V))
    with pytest.raises(UserError, match="task: i2v: each prompt needs a first frame"):
        policy.encode_prompts(WAN_PROMPTS)
    with pytest.raises(UserError, match="each prompt needs a first frame"):
        policy.encode_prompts(WAN_PROMPTS, first_frames[:2])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png: cannot be read as an image"):
        policy.encode_prompts(WAN_PROMPTS, [*first_frames[:2], broken])
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        policy.encode_prompts(WAN_PROMPTS, [*first_frames[:2], tmp_path / "gone.png"])


def test_another_scheduler(wan_folders: WanFolders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(wan_folders(T2V), tmp_path / "policy"))
    file = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "_class_name": "DDIMScheduler"}), encoding="utf-8")
    wanted = "UniPCMultistepScheduler or FlowMatchEulerDiscreteScheduler: it holds a DDIMScheduler"
    with pytest.raises(UserError, match=f"scheduler: cannot be loaded as {wanted}"):
        T2V.policy(folder)
    file.write_text(json.dumps({**config, "use_flow_sigmas": False}), encoding="utf-8")
    with pytest.raises(UserError, match="scheduler: its noise levels are not those of a flow"):
        T2V.policy(folder)


def test_clips_and_tiles(wan_folders: WanFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    """`decode_pixels` counts the frames; tiles are the codec's own."""
    sizes: list[int] = []

    def decoded(**changes: Any) -> torch.Tensor:
        policy = T2V.policy(wan_folders(T2V), **changes)
        decode = policy.vae.decode
        monkeypatch.setattr(
            policy.vae, "decode", lambda z, **kw: sizes.append(len(z)) or decode(z, **kw)
        )
        return policy.decode(wan_noise(policy))

    whole, parts = decoded(), decoded(decode_pixels=2 * 16 * 32 * 5)
    assert sizes == [3, 2, 1]
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
    tiled = T2V.policy(wan_folders(T2V), tile_vae=True)
    assert tiled.vae.use_tiling
    tiled.vae.enable_tiling(16, 16, 8, 8)
    found = tiled.decode(wan_noise(tiled))
    assert found.shape == whole.shape
    assert not torch.equal(found, whole)
