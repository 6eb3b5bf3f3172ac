"""Captions of which the specified ones are long and the open ones short."""

from __future__ import annotations

import numpy as np
import pytest

from bpgo.config.resolve import default_configfile, load, load_prompts
from bpgo.prompts.sets import load_prompt_set
from bpgo.scenes.captions import parse, split_of
from bpgo.scenes.hard_captions import sample_hard_captions


@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_specified_captions_ask_for_much_and_open_ones_for_little(split: str) -> None:
    captions = sample_hard_captions(256, 0, split)
    specified = [caption for caption in captions if caption.ambiguity == 0]
    loose = [caption for caption in captions if caption.ambiguity > 0]
    assert len(specified) == len(loose) == 128
    assert min(caption.atoms for caption in specified) >= 8
    assert {caption.count for caption in specified} == {2, 3}
    assert any(caption.relation for caption in specified)
    assert max(caption.atoms for caption in loose) <= 4
    assert min(caption.ambiguity for caption in loose) > 0.6
    assert all(caption.relation is None for caption in loose)


def test_texts_differ_and_keep_to_their_split() -> None:
    train, other = (sample_hard_captions(256, 0, split) for split in ("train", "evaluation"))
    assert len({caption.text for caption in train + other}) == 512
    assert {split_of(caption.text) for caption in train} == {"train"}
    assert all(parse(caption.text) == caption for caption in train)
    assert train == sample_hard_captions(256, 0, "train")
    assert train != sample_hard_captions(256, 1, "train")
    places = [place for place, caption in enumerate(train) if caption.ambiguity == 0]
    assert 100 < np.mean(places) < 156, "in random order"


def test_a_key_chooses_them() -> None:
    folder = default_configfile().parent
    hard, even = (load_prompts(name, folder) for name in ("scenes_hard", "scenes"))
    assert load_prompt_set(hard).split("train").prompts[0].text.split()
    ambiguities = [p.ambiguity for p in load_prompt_set(hard).split("evaluation").prompts]
    assert sum(value == 0 for value in ambiguities) == 128
    assert hard.decides("train") != even.model_copy(update={"train": 256}).decides("train")


def test_more_than_there_are() -> None:
    from bpgo.errors import UserError

    folder = default_configfile().parent
    settings = load_prompts("scenes_hard", folder).model_copy(update={"evaluation": 20000})
    with pytest.raises(UserError, match=r"prompts\.evaluation: 20000 is too many"):
        load_prompt_set(settings).split("evaluation")


def test_the_experiment_has_the_clear_worlds_rewards_and_the_anchors() -> None:
    settings = load(default_configfile().parent / "scenes_hard.yaml")
    entry = settings.experiments["hard"]
    assert entry.training_reward == "scenes_clear_a"
    assert set(entry.arms) == {
        *("grpo", "bpgo", "oracle_reward", "random_reward", "oracle_trust", "anti_trust")
    }
    assert settings.prompts.captions == "hard_specified"
