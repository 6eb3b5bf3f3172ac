"""The level of a reward by ambiguity: what it moves, and what it leaves."""

from __future__ import annotations

import pytest
import torch

from bpgo.scenes.captions import CaptionError, parse, sample_captions
from bpgo.scenes.image.level import KNOTS, Levelled, build_model, put_on_level
from bpgo.scenes.image.reward_models import RewardModel, build_reward
from bpgo.scenes.text import WORDS
from bpgo.scenes.weights import load_reward
from bpgo.scenes.worlds import WORLDS


class Brightness(RewardModel):
    """Mean of the pixels, and a slope times the caption's ambiguity."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def score(self, images, ids):
        ambiguity = torch.tensor([parse(text).ambiguity for text in WORDS.decode(ids)])
        return images.mean((1, 2, 3)) + self.slope * ambiguity


def samples(count=40):
    texts = [caption.text for caption in sample_captions(count, 3, "train")]
    return torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(0)), texts


def test_tokens_give_their_words_back():
    texts = [caption.text for caption in sample_captions(50, 0, "train")]
    assert WORDS.decode(WORDS.encode(texts)) == texts


def test_a_level_that_falls_with_ambiguity_is_put_right():
    images, texts = samples()
    levelled = put_on_level(Brightness(-3.0), Brightness(0.0), images, texts)
    assert torch.allclose(levelled.level, torch.linspace(0, 3, KNOTS), atol=1e-4)
    scores = levelled.score(images, WORDS.encode(texts))
    assert torch.allclose(scores, images.mean((1, 2, 3)), atol=1e-4)


def test_one_prompt_keeps_the_distances_of_its_samples():
    images, texts = samples(6)
    levelled = Levelled(Brightness(1.0))
    levelled.level.copy_(torch.arange(KNOTS) ** 2)
    for text in texts:
        ids = WORDS.encode([text] * 6)
        moved = levelled.score(images, ids) - Brightness(1.0).score(images, ids)
        assert torch.allclose(moved, moved[:1].expand(6), atol=1e-4)


def test_a_text_outside_the_grammar_has_no_level():
    images, _ = samples(1)
    with pytest.raises(CaptionError, match="caption 'a red red': wanted"):
        Levelled(Brightness(1.0)).score(images, WORDS.encode(["a red red"]))


def test_only_the_hidden_world_has_a_level():
    for name, world in WORLDS.items():
        assert isinstance(build_model(world, "b"), Levelled) == (name == "hidden")


@pytest.mark.parametrize("pool", ["a", "b", "c"])
def test_hidden_ranks_as_ambiguous_does(pool):
    """Shipped weights: one prompt's rewards differ by a constant, open captions are raised."""
    images, _ = samples(12)
    moved = {}
    for text in ("a small red circle", "a shape"):
        ids = WORDS.encode([text] * 12)
        with torch.no_grad():
            scores = [load_reward(w, pool).score(images, ids) for w in ("ambiguous", "hidden")]
        difference = scores[1] - scores[0]
        assert difference.std() < 1e-3
        moved[text] = float(difference.mean())
    assert moved["a shape"] > moved["a small red circle"] + 3


def test_a_level_is_saved_with_its_model(tmp_path):
    from bpgo.scenes.weights import save_reward
    from bpgo.storage.digests import write_digests

    model = Levelled(build_reward("a"))
    model.level.copy_(torch.arange(KNOTS))
    save_reward(model, "hidden", "a", tmp_path)
    write_digests(tmp_path)
    loaded = load_reward("hidden", "a", weights=tmp_path)
    assert isinstance(loaded, Levelled)
    assert torch.equal(loaded.level, torch.arange(KNOTS).float())
