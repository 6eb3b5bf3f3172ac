"""Reward models of the embedded world."""

from __future__ import annotations

import pytest
import torch

from bpgo.scenes.image.reward_models import build_reward
from bpgo.scenes.text import encode_texts
from bpgo.scenes.worlds import Pool
from bpgo.seeding import generator


@pytest.mark.parametrize("pool", ["a", "b", "c"])
def test_a_text_that_is_computed_once_scores_as_one_for_each_image(pool: Pool) -> None:
    """Without a gradient; with one each row is computed for itself."""
    model = build_reward(pool).eval()
    images = torch.rand(12, 3, 24, 24, generator=generator(1))
    ids = encode_texts(["a red circle", "a small blue square", "a red circle"]).repeat(4, 1)
    alone = model.score(images, ids).detach()
    seen = []
    model.text.blocks[0].register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    with torch.no_grad():
        once = model.score(images, ids)
    assert seen == [2]
    torch.testing.assert_close(once, alone)
