"""Every shipped arm trains clips, text to video and image to video, by the same core."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from shipped_arms import NAMES, values_of
from tiny_models import TOKENS
from tiny_wan import build_tiny_wan
from tiny_world import CALIBRATION, CAPTIONS, tiny_settings

from bpgo import registry
from bpgo.core.trainer import Trainer
from bpgo.errors import RatioError
from bpgo.models.wan import WanPolicy
from bpgo.records import Calibration, PromptBatch, Samples

SIZE = {"kind": "wan", "frames": 5, "resolution": 24, "prompt_tokens": TOKENS}
PRIORS = {"t2v": "sft_mean", "i2v": "first_frame"}


def brightening(samples: Samples) -> torch.Tensor:
    """A reward of clips: the last frame is brighter than the first, by the text a little more."""
    clips = samples.pixels
    assert clips.shape[1:] == (5, 3, 24, 24)
    return (clips[:, -1] - clips[:, 0]).mean(dim=(1, 2, 3)) * torch.tensor(
        [1 + len(text) / 100 for text in samples.texts]
    )


class NearFirstFrame:
    """A diagnostic that needs the given frames."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, samples: Samples) -> torch.Tensor:
        assert samples.first_frames is not None
        self.seen.append(samples.first_frames)
        return -(samples.pixels[:, 0] - samples.first_frames).abs().mean(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wan")
    for index in range(len(CAPTIONS)):
        Image.new("RGB", (24, 24), (40 * index, 80, 200)).save(folder / f"{index}.png")
    return {
        "t2v": build_tiny_wan(folder / "t2v"),
        "i2v": build_tiny_wan(folder / "i2v", frames=True),
        "frames": folder,
    }


def greenness(samples: Samples) -> torch.Tensor:
    return samples.pixels[:, :, 1].mean(dim=(1, 2, 3))


def make(folders: dict[str, Path], task: str, arm: dict[str, Any], output: Path) -> Trainer:
    settings = tiny_settings(
        folders[task],
        model={**SIZE, "task": task},
        arms={"arm": arm},
        rollout={"prompts_per_iteration": 1, "group_size": 12, "steps": 8, "batch_size": 12},
        experiments={
            "tiny": {
                "title": "Tiny",
                "training_reward": "oracle",
                "judges": ["oracle"],
                "arms": ["arm"],
                "seeds": [1],
            }
        },
    )
    policy = WanPolicy(settings.model, "full")
    frames = [folders["frames"] / f"{index}.png" for index in range(len(CAPTIONS))]
    given = frames if task == "i2v" else None
    names = [f"p{index}" for index in range(len(CAPTIONS))]
    earned = {name: 0.1 * index for index, name in enumerate(names)} if given else {}
    extra: dict[str, Any] = {"oracle": greenness}  # that some arms read
    if given:
        extra["near"] = NearFirstFrame()
    chosen: Any = settings.arms["arm"]
    return Trainer(
        settings,
        policy,
        registry.load_arm_class(chosen.algorithm)(chosen),
        brightening,
        extra,
        PromptBatch(names, CAPTIONS, [0.5] * len(CAPTIONS), given),
        policy.encode_prompts(CAPTIONS, given),
        Calibration(0.0, 0.05, -0.2, CALIBRATION.prompt_means, first_frames=earned),
        1,
        output,
        "digest",
    )


@pytest.mark.parametrize("task", PRIORS)
@pytest.mark.parametrize("name", NAMES)
def test_an_iteration(name: str, task: str, folders: dict[str, Path], tmp_path: Path) -> None:
    values = values_of(name)
    if "prior" in (values["trust"] or {}):
        values["trust"]["prior"] = PRIORS[task]  # the paper's, by task
    trainer = make(folders, task, values, tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    entry = trainer.iterate(1)
    assert entry["ratio_deviation"] == 0.0
    assert entry["gradient_norm"] > 0
    assert trainer.arm.passes(trainer.settings.rollout).trained >= 1
    assert all(math.isfinite(value) for value in entry.values())
    assert any(not torch.equal(p, before[name]) for name, p in trainer.parameters.items())


def test_the_first_frames_prior_is_the_calibrations(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """And the given frames reach the reward that compares with them, once for each sample."""
    values = values_of("bpgo", trust={"prior": "first_frame", "first_frame_offset": "none"})
    trainer = make(folders, "i2v", values, tmp_path)
    rows: list[Any] = []

    class Rows:
        def write(self, *columns: Any) -> None:
            rows.append(columns)

    trainer.iterate(1, Rows())  # type: ignore[arg-type]
    _, prompts, _, diagnostics, result = rows[0]
    expected = [0.1 * int(prompt[1:]) for prompt in prompts.ids]
    assert result.group_columns["prior"].tolist() == pytest.approx(expected)
    group = trainer.settings.rollout.group_size
    assert diagnostics["near"].shape == (len(prompts), group)
    (given,) = trainer.diagnostics["near"].seen  # type: ignore[attr-defined]
    reds = [40 * int(prompt[1:]) / 255 for prompt in prompts.ids for _ in range(group)]
    assert given[:, 0, 0, 0].tolist() == pytest.approx(reds)


def test_another_boundary_than_in_the_rollout_is_refused(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two experts: the ratios would compare two policies."""
    trainer = make(folders, "t2v", values_of("grpo"), tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    draw = trainer._rollout

    def then_changed(*arguments: Any) -> Any:
        found = draw(*arguments)
        trainer.policy.boundary = 0.875
        return found

    monkeypatch.setattr(trainer, "_rollout", then_changed)
    with pytest.raises(RatioError, match=r"was None in the rollout and is 0\.875 in the update"):
        trainer.iterate(1)
    assert all(torch.equal(p, before[name]) for name, p in trainer.parameters.items())
