"""The caption grammar: what it accepts, how ambiguous a caption is, and the three splits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpgo.scenes.captions import (
    MAX_WORDS,
    SPLITS,
    VOCABULARY,
    CaptionError,
    Phrase,
    noisy_text,
    parse,
    sample_captions,
    split_of,
)


@pytest.mark.parametrize(
    ("text", "phrases", "relation", "ambiguity"),
    [
        ("a small red circle", [Phrase("small", "red", "circle")], None, 0.0),
        ("a little red circle", [Phrase("small", "red", "circle")], None, 0.0),
        ("something red", [Phrase(None, "red", None)], None, 2 / 3),
        ("a shape", [Phrase()], None, 1.0),
        ("two things", [Phrase(), Phrase()], None, 1.0),
        ("three big crosses", [Phrase("large", None, "cross")] * 3, None, 1 / 3),
        (
            "a small red circle left of a large blue square",
            [Phrase("small", "red", "circle"), Phrase("large", "blue", "square")],
            "left_of",
            0.0,
        ),
        ("a circle and a square", [Phrase(shape="circle"), Phrase(shape="square")], None, 5 / 7),
        (
            "a circle over a square",
            [Phrase(shape="circle"), Phrase(shape="square")],
            "above",
            4 / 7,
        ),
        (
            "two red circles and something small",
            [Phrase(None, "red", "circle")] * 2 + [Phrase("small")],
            None,
            0.5,
        ),
        ("a shape and a thing and a figure", [Phrase()] * 3, None, 1.0),
    ],
)
def test_parse(text, phrases, relation, ambiguity):
    caption = parse(text)
    assert list(caption.phrases) == phrases
    assert caption.relation == relation
    assert caption.ambiguity == pytest.approx(ambiguity)
    assert caption.count == len(phrases)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a purple circle", "unknown word 'purple'"),
        ("red circle", "wanted 'a' or 'something' at word 1"),
        ("a circle left a square", "at word 3"),
        ("two circle", "wanted a noun at word 2"),
        ("three circles and a square", "the end of the caption"),
        ("a circle above a square above a cross", "the end of the caption"),
        ("something small red", "the end of the caption"),
        ("a small red circle and a small red circle and a small red circle", "at most 11"),
    ],
)
def test_text_outside_the_grammar(text, message):
    with pytest.raises(CaptionError, match=message):
        parse(text)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), split=st.sampled_from(SPLITS))
def test_sampled_captions_parse_and_stay_in_their_split(seed, split):
    for caption in sample_captions(5, seed, split):
        words = caption.text.split()
        assert parse(caption.text) == caption
        assert len(words) <= MAX_WORDS
        assert set(words) <= set(VOCABULARY)
        assert 0 <= caption.ambiguity <= 1
        assert 1 <= caption.count <= 3
        assert split_of(caption.text) == split


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_leaving_a_word_out_makes_a_caption_more_ambiguous(seed):
    for caption in sample_captions(3, seed):
        words = caption.text.split()
        for index in range(len(words)):
            try:
                shorter = parse(" ".join(words[:index] + words[index + 1 :]))
            except CaptionError:
                continue
            if shorter.count == caption.count:
                assert shorter.ambiguity > caption.ambiguity


def test_splits_are_disjoint_deterministic_and_large_enough():
    drawn = {
        split: sample_captions(count, seed, split)
        for seed, (split, count) in enumerate(
            {"train": 1000, "held_out": 500, "evaluation": 700}.items()
        )
    }
    texts = {split: {caption.text for caption in captions} for split, captions in drawn.items()}
    assert len(texts["train"]) == 1000
    assert len(texts["evaluation"]) == 700
    assert not texts["train"] & texts["evaluation"]
    assert not texts["train"] & texts["held_out"]
    assert not texts["held_out"] & texts["evaluation"]
    assert sample_captions(700, 2, "evaluation") == drawn["evaluation"]
    assert sample_captions(10, 3, "evaluation") != drawn["evaluation"][:10]
    for captions in drawn.values():
        mean = sum(caption.ambiguity for caption in captions) / len(captions)
        assert 0.43 < mean < 0.53


@pytest.mark.parametrize(("count", "split"), [(-1, "train"), (1, "test")])
def test_bad_arguments(count, split):
    with pytest.raises(ValueError, match=r"count is -1|split is 'test'"):
        sample_captions(count, 0, split)


def test_imports_no_torch():
    code = "import sys, bpgo.scenes.captions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "text", ["two red circles and something small", "a big cross left of a thing"]
)
def test_noise_changes_the_words_that_state_something_and_no_others(text):
    draws = np.random.default_rng(0)
    assert noisy_text(text, 0.0, draws) == text
    seen = {noisy_text(text, 1.0, draws) for _ in range(200)}
    words = [{each.split()[place] for each in seen} for place in range(len(text.split()))]
    kinds = {"red": 4, "circles": 4, "small": 4, "big": 4, "cross": 4, "left": 2}
    assert [len(found) for found in words] == [kinds.get(word, 1) for word in text.split()]
    for each in seen:
        parse(each)  # still within the grammar


def test_noise_draws_a_share_of_the_words():
    draws = np.random.default_rng(0)
    texts = [noisy_text("a red thing", 0.4, draws) for _ in range(4000)]
    kept = sum(text == "a red thing" for text in texts) / len(texts)
    assert kept == pytest.approx(0.6 + 0.4 / 4, abs=0.03)  # a quarter of the draws is the same word
