"""Captions of which the specified ones are hard and the open ones easy.

In `bpgo.scenes.captions` an open caption asks for less, but has as many objects as a specified one.
Here half of the captions state every attribute of two or three objects in ten words or so; the
other half ask for little: a few objects of any look. A base policy often fails the first and seldom
the second, and a reward may be right about both: low rewards then say *hard*, not *ambiguous*.

The words and the splits are those of the grammar. Imports no torch.
"""

from __future__ import annotations

import numpy as np

from bpgo.scenes.captions import (
    COLOURS,
    OPEN_NOUNS,
    SHAPES,
    SIZE_WORDS,
    Caption,
    Split,
    draw_texts,
    parse,
    pick,
)
from bpgo.seeding import numpy_generator

RELATIONS = ("left of", "right of", "above", "over", "below", "under")


def sample_hard_captions(count: int, seed: int, split: Split = "train") -> list[Caption]:
    """Draw captions of one split, all different; equal arguments give equal captions.

    Half of them are specified and long, half open and short, in random order.

    Raises:
        ValueError: see `bpgo.scenes.captions.draw_texts`.
    """
    generator = numpy_generator(seed, "hard captions", split)
    specified = draw_texts(count // 2, split, lambda: _specified(generator))
    loose = draw_texts(count - count // 2, split, lambda: _open(generator))
    texts = [*specified, *loose]
    return [parse(texts[row]) for row in generator.permutation(count)]


def _specified(generator: np.random.Generator) -> str:
    """Two objects and how they stand, or a counted pair and an object; nothing is left open."""
    if generator.uniform() < 0.5:
        return f"{_full(generator)} {pick(generator, RELATIONS)} {_full(generator)}"
    noun = _plural(pick(generator, SHAPES))
    return f"two {_size_colour(generator)} {noun} and {_full(generator)}"


def _full(generator: np.random.Generator) -> str:
    return f"a {_size_colour(generator)} {pick(generator, SHAPES)}"


def _size_colour(generator: np.random.Generator) -> str:
    return f"{pick(generator, tuple(SIZE_WORDS))} {pick(generator, COLOURS)}"


def _open(generator: np.random.Generator) -> str:
    """One object, two of a kind or three, or two objects; at most one attribute of each stated."""
    form = generator.uniform()
    if form < 0.4:
        return _loose(generator)
    if form < 0.75:
        words = [("two", "three")[int(generator.integers(2))], *_one_word(generator)]
        return " ".join([*words, _plural(pick(generator, OPEN_NOUNS))])
    return f"{_loose(generator)} and {_loose(generator)}"


def _loose(generator: np.random.Generator) -> str:
    if generator.uniform() < 0.3:
        return " ".join(["something", *_one_word(generator)])
    return " ".join(["a", *_one_word(generator), pick(generator, OPEN_NOUNS)])


def _one_word(generator: np.random.Generator) -> list[str]:
    """A size, a colour, or nothing."""
    kind = int(generator.integers(3))
    return [[], [pick(generator, tuple(SIZE_WORDS))], [pick(generator, COLOURS)]][kind]


def _plural(noun: str) -> str:
    return noun + ("es" if noun == "cross" else "s")
