"""The grammar of clips: what parses, what it means, how ambiguous it is, how it is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from bpgo.scenes.captions import COLOURS, SHAPES, CaptionError, Phrase, pick, split_of
from bpgo.scenes.video import captions
from bpgo.scenes.video.captions import (
    MAX_WORDS,
    VOCABULARY,
    Clause,
    parse,
    sample_captions,
    specified_captions,
)


@pytest.mark.parametrize(
    ("text", "clauses", "ambiguity"),
    [
        ("a shape moves", [Clause(Phrase(), "moves")], 1.0),
        ("a big red circle moves left", [Clause(Phrase("large", "red", "circle"), "left")], 0.0),
        ("something red moves", [Clause(Phrase(None, "red"), "moves")], 3 / 4),
        ("a yellow triangle", [Clause(Phrase(None, "yellow", "triangle"))], 1 / 2),
        ("the yellow triangle", [Clause(Phrase(None, "yellow", "triangle"))], 2 / 3),
        ("the shape moves left", [Clause(Phrase(), "left")], 1 / 2),
        (
            "a blue square moves up and a small green cross stays still",
            [
                Clause(Phrase(None, "blue", "square"), "up"),
                Clause(Phrase("small", "green", "cross"), "still"),
            ],
            1 / 8,
        ),
    ],
)
def test_meaning(text, clauses, ambiguity):
    caption = parse(text)
    assert list(caption.clauses) == clauses
    assert caption.ambiguity == pytest.approx(ambiguity)
    assert caption.definite == text.startswith("the")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a circle flies", "unknown word 'flies'"),
        ("a circle stays", "wanted 'still' at word 4, found the end"),
        ("a circle left", "wanted the end of the caption at word 3"),
        ("the circle and a square", "wanted 'the', as for the other object at word 4, found 'a'"),
        ("a circle and a square and a cross", "wanted the end of the caption"),
        ("the small", "wanted a noun"),
        (" ".join(["a"] * (MAX_WORDS + 1)), f"at most {MAX_WORDS}"),
    ],
)
def test_bad_captions_say_where(text, message):
    with pytest.raises(CaptionError, match=message):
        parse(text)


@pytest.mark.parametrize("task", ["t2v", "i2v"])
def test_drawn_captions(task):
    splits = {
        split: sample_captions(150, 3, split, task) for split in ("train", "held_out", "evaluation")
    }
    texts = {split: {caption.text for caption in found} for split, found in splits.items()}
    assert all(len(found) == 150 for found in texts.values())
    assert not texts["train"] & (texts["held_out"] | texts["evaluation"])
    drawn = [caption for found in splits.values() for caption in found]
    assert {caption.definite for caption in drawn} == {task == "i2v"}
    assert {word for caption in drawn for word in caption.text.split()} <= set(VOCABULARY)
    ambiguity = np.array([caption.ambiguity for caption in drawn])
    assert 0.35 < ambiguity.mean() < 0.6
    assert ((ambiguity < 0.3).mean() > 0.2) & ((ambiguity > 0.7).mean() > 0.15)
    again = sample_captions(150, 3, "train", task)
    assert again == splits["train"]
    assert again != sample_captions(150, 4, "train", task)


def test_specified_captions_leave_nothing_open():
    drawn = specified_captions(40, 0, "held_out")
    assert {caption.ambiguity for caption in drawn} == {0.0}
    assert {caption.count for caption in drawn} == {1, 2}


def test_more_captions_than_there_are(monkeypatch):
    texts = [f"the {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    monkeypatch.setattr(captions, "_draw_text", lambda generator, task: pick(generator, texts))
    there_are = [text for text in texts if split_of(text) == "train"]
    found = sample_captions(len(there_are), 0, "train", "i2v")
    assert sorted(caption.text for caption in found) == sorted(there_are)
    one_more = len(there_are) + 1
    with pytest.raises(ValueError, match=f"could not find {one_more} distinct captions in .*train"):
        sample_captions(one_more, 0, "train", "i2v")
    assert len(sample_captions(one_more, 0, "train", "i2v", distinct=False)) == one_more
