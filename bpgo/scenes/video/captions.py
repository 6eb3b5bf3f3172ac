"""Captions of the video world: the image world's phrases, and what each object does.

Grammar (at most :data:`MAX_WORDS` words)::

    caption = clause ["and" clause]
    clause  = phrase [motion]
    phrase  = ("a" | "the") [size] [colour] noun | "something" [size | colour]
    motion  = "moves" ["left" | "right" | "up" | "down"] | "stays" "still"

"a" and "something" tell what a clip holds (text-to-video). "the" speaks of what the first frame
holds (image-to-video), which may hold more; a caption uses one way for all its objects.

**Ambiguity** is the share of attributes a caption leaves open, four an object: size, colour,
shape and motion ("moves" alone leaves the motion open, though it says something). So "a small red
circle moves left" has ambiguity 0 and "a shape moves" 1. Where a first frame shows the looks
("the"), the motion counts as much as the three together: "the shape moves left" has ambiguity 1/2.
The definition is our choice.

This module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from bpgo.scenes.captions import (
    COLOURS,
    OPEN_NOUNS,
    SHAPES,
    SIZE_WORDS,
    Phrase,
    Reader,
    Split,
    draw_phrase,
    draw_texts,
    pick,
    split_words,
)
from bpgo.seeding import numpy_generator

Task = Literal["t2v", "i2v"]
TASKS: tuple[Task, ...] = get_args(Task)

DIRECTIONS = ("left", "right", "up", "down")
STILL = "still"
MOTIONS = (*DIRECTIONS, STILL)
"""What an object can do."""
MOVES = "moves"
"""What a caption can say besides: one of the four directions."""

MAX_WORDS = 13
"""Longest caption; one more token ends the text, so text encoders see 14 tokens."""

VOCABULARY: tuple[str, ...] = (
    "a",
    "the",
    "something",
    *SIZE_WORDS,
    *COLOURS,
    *SHAPES,
    *OPEN_NOUNS,
    "and",
    MOVES,
    *DIRECTIONS,
    "stays",
    STILL,
)
"""Every word of the grammar, in a fixed order: the tokenizers' vocabulary."""

LOOKS = 3
"""Of each object: size, colour, shape."""


@dataclass(frozen=True)
class Clause:
    """What a caption says of one object: its looks, and its motion (None where it says nothing).

    ``motion`` is one of MOTIONS, or MOVES for "moves" without a direction.
    """

    phrase: Phrase
    motion: str | None = None

    def settled(self, motion_weight: int) -> int:
        """How many of size, colour and shape are settled, and the motion, which counts more."""
        return self.phrase.stated + motion_weight * (self.motion in MOTIONS)


@dataclass(frozen=True)
class Caption:
    """A parsed caption.

    Attributes:
        text: the words, lower case, single spaces.
        clauses: one per object, 1 or 2.
        definite: speaks of a first frame's objects ("the"), of which there may be more.
        ambiguity: share of attributes left open, in [0, 1] (module docstring).
    """

    text: str
    clauses: tuple[Clause, ...]
    definite: bool
    ambiguity: float

    @property
    def count(self) -> int:
        """Number of objects the caption names."""
        return len(self.clauses)


def parse(text: str) -> Caption:
    """Parse a text of the grammar.

    Raises:
        CaptionError: the text is outside the grammar; the message says where.
    """
    words = split_words(text, VOCABULARY, MAX_WORDS)
    reader = _ClauseReader(words)
    clauses = reader.clauses()
    weight = LOOKS if reader.definite else 1
    known = sum(clause.settled(weight) for clause in clauses)
    ambiguity = 1.0 - known / ((LOOKS + weight) * len(clauses))
    return Caption(" ".join(words), tuple(clauses), reader.definite, ambiguity)


class _ClauseReader(Reader):
    """Reads clauses; the phrases are the image world's."""

    @property
    def definite(self) -> bool:
        return "the" in self.words

    def clauses(self) -> list[Clause]:
        clauses = [self.clause()]
        if self.take("and"):
            clauses.append(self.clause())
        self.end()
        return clauses

    def clause(self) -> Clause:
        if not self.definite:
            phrase = self.phrase()
        elif self.take("the"):
            phrase = self.noun_phrase({noun: noun for noun in (*SHAPES, *OPEN_NOUNS)})
        else:
            raise self.fail("'the', as for the other object")
        return Clause(phrase, self.motion())

    def motion(self) -> str | None:
        if self.take("stays"):
            if not self.take(STILL):
                raise self.fail("'still'")
            return STILL
        if not self.take(MOVES):
            return None
        return next((word for word in DIRECTIONS if self.take(word)), MOVES)


def sample_captions(
    count: int, seed: int, split: Split = "train", task: Task = "t2v", *, distinct: bool = True
) -> list[Caption]:
    """Draw captions of one split and task; equal arguments give equal captions.

    Splits go by the text alone, as in the image world. How open a caption is varies evenly.

    Raises:
        ValueError: a negative count, an unknown split, or more distinct captions than there are.
    """
    generator = numpy_generator(seed, "clip captions", task, split)
    texts = draw_texts(count, split, lambda: _draw_text(generator, task), distinct=distinct)
    return [parse(text) for text in texts]


def specified_captions(count: int, seed: int, split: Split, task: Task = "t2v") -> list[Caption]:
    """Draw captions that leave nothing open (ambiguity 0), in the manner of sample_captions."""
    generator = numpy_generator(seed, "specified clip captions", task, split)
    texts = draw_texts(count, split, lambda: _words(generator, task, 0.0), distinct=False)
    return [parse(text) for text in texts]


def _draw_text(generator: np.random.Generator, task: Task) -> str:
    return _words(generator, task, float(generator.uniform()) ** 0.7)


def _words(generator: np.random.Generator, task: Task, openness: float) -> str:
    """Draw one caption text; each attribute is left open with probability ``openness``."""
    objects = 1 if generator.uniform() < (0.5 if task == "t2v" else 0.65) else 2
    clauses = []
    for _ in range(objects):
        words = draw_phrase(generator, openness)
        if task == "i2v":
            words = _definite(generator, words)
        clauses.append(words + _draw_motion(generator, openness))
    return " ".join(" and ".join(" ".join(words) for words in clauses).split())


def _definite(generator: np.random.Generator, words: list[str]) -> list[str]:
    """The phrase with "the"; there is no "the something"."""
    if words[0] == "something":
        return ["the", *words[1:], pick(generator, OPEN_NOUNS)]
    return ["the", *words[1:]]


def _draw_motion(generator: np.random.Generator, openness: float) -> list[str]:
    if generator.uniform() >= openness:
        motion = pick(generator, MOTIONS)
        return ["stays", STILL] if motion == STILL else [MOVES, motion]
    return [MOVES] if generator.uniform() < 0.6 else []
