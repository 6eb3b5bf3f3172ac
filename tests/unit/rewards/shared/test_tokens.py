"""Prompts that a reward reads only in part are counted by its own tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_image_reward import build_tiny_image_reward, image_reward_overrides
from tiny_rewards import build_tiny_rewards, tiny_overrides

from bpgo import registry
from bpgo.config import resolve as config
from bpgo.config.settings import RewardSettings, Settings
from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.rewards import load_reward
from bpgo.rewards.shared.tokens import cut_texts
from bpgo.rewards.weighted_sum import WeightedSumSettings
from bpgo.tools.doctor.prompts import cut_notes

# Tokens of a prompt that are read, begin and end among them.
MOST = {"hpsv2": 77, "pickscore": 77, "clip_score": 77, "image_reward": 35}


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RewardSettings]:
    """Settings of tiny checkpoints with the published tokenizers' layouts, and a sum of two."""
    root = tmp_path_factory.mktemp("rewards")
    build_tiny_rewards(root)
    places: dict[str, Any] = tiny_overrides(root)
    places["image_reward"] = image_reward_overrides(build_tiny_image_reward(root / "words"))
    found: dict[str, RewardSettings] = {}
    for name in (*MOST, "aesthetic"):
        file = config.default_configfile().parent / "rewards" / f"{name}.yaml"
        values = config.read_yaml(file) | places[name]
        schema = registry.load_reward_class(values["kind"]).Settings
        found[name] = config.validate(schema, values, str(file))
    parts = {"clip_score": 1.0, "image_reward": 1.0}
    found["both"] = WeightedSumSettings(kind="weighted_sum", title="Both", parts=parts)
    return found


@pytest.fixture(scope="module")
def settings(rewards: dict[str, RewardSettings]) -> Settings:
    """The default configuration with one experiment that these judge."""
    found = config.load(config.default_configfile())
    entry = found.experiments["clear"].model_copy(update={"judges": [*MOST, "aesthetic"]})
    changes = {"experiments": {"clear": entry}, "rewards": {**found.rewards, **rewards}}
    return found.model_copy(update=changes)


@pytest.mark.parametrize("name", MOST)
def test_what_lies_behind_the_end_is_not_read(name: str, settings: Settings) -> None:
    """A prompt is cut if, and only if, another last word leaves its score as it is."""
    reward = load_reward(settings.rewards[name])
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))

    def heard(words: int) -> bool:
        texts = ["a " * (words - 1) + last for last in ("a", "red")]
        one, two = (float(reward(Samples(image, [text]))) for text in texts)
        return one != two

    fits = MOST[name] - 2
    texts = ["a " * (words - 1) + "a" for words in (1, fits, fits + 1)]
    assert cut_texts(settings, name, texts) == [False, False, True]
    assert [heard(fits), heard(fits + 1)] == [True, False]


def test_of_a_sum_the_shortest_counts(settings: Settings) -> None:
    texts = ["a " * 34, "a " * 33]
    assert settings.longest_prompt("both") == 35
    assert cut_texts(settings, "both", texts) == [True, False]
    assert cut_texts(settings, "clip_score", texts) == [False, False]
    assert settings.longest_prompt("aesthetic") is None
    assert cut_texts(settings, "aesthetic", texts) == [False, False]


def test_the_doctor_counts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions of the embedded world are short; each reward is made to read two tokens alone."""
    assert cut_notes(config.load(config.default_configfile()), True) == []
    notes = cut_notes(settings, True)
    assert notes[0] == (
        "hpsv2 reads at most 77 tokens of a prompt: of 0 of 512 training prompts and 0 of 512"
        " evaluation prompts only the beginning"
    )
    assert len(notes) == len(MOST)
    monkeypatch.setattr(type(settings.rewards["hpsv2"]), "longest_prompt", lambda _: 2)
    assert "of 512 of 512 training prompts" in cut_notes(settings, True)[0]
    assert "image_reward 35" in cut_notes(settings, False)[0]


def test_a_tokenizer_that_is_not_here(settings: Settings, tmp_path: Path) -> None:
    away = settings.rewards["pickscore"].model_copy(update={"processor": str(tmp_path / "none")})
    rewards = {**settings.rewards, "pickscore": away}
    without = settings.model_copy(update={"rewards": rewards})
    with pytest.raises(UserError, match=r"PickScore.*: its tokenizer, .*none, is not on"):
        cut_texts(without, "pickscore", ["a"])
    assert "longer prompts are not counted: reward 'PickScore'" in cut_notes(without, True)[1]
