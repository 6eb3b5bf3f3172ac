"""Captions of the embedded world: a small compositional grammar that knows its own ambiguity.

Grammar (at most :data:`MAX_WORDS` words)::

    caption  = phrase
             | phrase joiner phrase
             | phrase relation phrase
             | phrase "and" phrase "and" phrase
             | ("two" | "three") nouns
             | "two" nouns "and" phrase
    phrase   = "a" [size] [colour] noun | "something" [size | colour]
    nouns    = [size] [colour] plural noun
    joiner   = "and" | "with"
    relation = "left of" | "right of" | "above" | "over" | "below" | "under"

A noun is a shape ("circle") or leaves the shape open ("shape", "thing", "figure").

**Ambiguity** is the share of attributes a caption leaves open. Each noun phrase has three (size,
colour, shape; the objects of a counted phrase share theirs) and two single phrases joined
have a fourth kind, their relation: "a small red circle" has ambiguity 0, "something red" 2/3,
"a shape and a thing" 1. The definition is our choice.

This module imports no torch: prompt lists are made and parsed in a light environment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from bpgo.errors import UserError
from bpgo.seeding import numpy_generator

Split = Literal["train", "held_out", "evaluation"]
SPLITS: tuple[Split, ...] = get_args(Split)

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow")
SIZES = ("small", "large")
RELATIONS = ("left_of", "right_of", "above", "below")

MAX_WORDS = 11
MISSES = 20_000  # draws in a row without a new caption, after which there are no more
"""Longest caption; one more token ends the text, so text encoders see 12 tokens."""

SIZE_WORDS = {"small": "small", "little": "small", "large": "large", "big": "large"}
OPEN_NOUNS = ("shape", "thing", "figure")
_PLURALS = {noun: noun + ("es" if noun == "cross" else "s") for noun in SHAPES + OPEN_NOUNS}
_SINGULARS = {plural: noun for noun, plural in _PLURALS.items()}
_NUMERALS = {"two": 2, "three": 3}
_JOINERS = ("and", "with")
_RELATION_WORDS = {
    ("left", "of"): "left_of",
    ("right", "of"): "right_of",
    ("above",): "above",
    ("over",): "above",
    ("below",): "below",
    ("under",): "below",
}
VOCABULARY: tuple[str, ...] = (
    "a",
    "something",
    *_NUMERALS,
    *SIZE_WORDS,
    *COLOURS,
    *_PLURALS,
    *_SINGULARS,
    *_JOINERS,
    *dict.fromkeys(word for words in _RELATION_WORDS for word in words),
)
"""Every word of the grammar, in a fixed order: the tokenizers' vocabulary."""

# Words that can stand in each other's place; "of" follows both words of the last kind.
_KINDS: tuple[tuple[str, ...], ...] = (
    SHAPES,
    tuple(_PLURALS[noun] for noun in SHAPES),
    COLOURS,
    tuple(SIZE_WORDS),
    ("above", "over", "below", "under"),
    ("left", "right"),
)

# Tenths of the caption space: a split is a property of the text alone, whatever the seed.
_SPLIT_OF_TENTH: tuple[Split, ...] = ("train",) * 6 + ("held_out",) * 2 + ("evaluation",) * 2


class CaptionError(UserError, ValueError):
    """A text outside the grammar."""


@dataclass(frozen=True)
class Phrase:
    """What a caption says of one object; ``None`` is left open."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None

    @property
    def stated(self) -> int:
        """How many of size, colour and shape are stated, 0 to 3."""
        return sum(value is not None for value in (self.size, self.colour, self.shape))


@dataclass(frozen=True)
class Caption:
    """A parsed caption.

    Attributes:
        text: the words, lower case, single spaces.
        phrases: one per object (1 to 3); objects of a counted phrase repeat it.
        relation: how the first object stands to the second, one of RELATIONS, or None.
        ambiguity: share of attributes left open, in [0, 1] (module docstring).
    """

    text: str
    phrases: tuple[Phrase, ...]
    relation: str | None
    ambiguity: float

    @property
    def count(self) -> int:
        """Number of objects the caption asks for."""
        return len(self.phrases)

    @property
    def atoms(self) -> int:
        """Number of checkable facts: the count, each object's attributes, the relation."""
        stated = sum(phrase.stated for phrase in self.phrases)
        return 1 + stated + (self.relation is not None)


def parse(text: str) -> Caption:
    """Parse a text of the grammar.

    Raises:
        CaptionError: the text is outside the grammar; the message says where.
    """
    words = split_words(text, VOCABULARY, MAX_WORDS)
    reader = Reader(words)
    phrases, slots, relation = reader.caption()
    stated = [phrase.stated for phrase in slots]
    attributes, known = 3 * len(slots), sum(stated)
    if len(slots) == 2 and len(phrases) == 2:  # two single objects: their relation counts too
        attributes, known = attributes + 1, known + (relation is not None)
    return Caption(" ".join(words), tuple(phrases), relation, 1.0 - known / attributes)


def split_words(text: str, vocabulary: tuple[str, ...], longest: int) -> list[str]:
    """Words of a caption; CaptionError if there is none, too many, or one is unknown."""
    words = text.split()
    if not words:
        raise CaptionError("caption is empty")
    if len(words) > longest:
        raise CaptionError(f"caption {text!r} has {len(words)} words, at most {longest} allowed")
    unknown = [word for word in words if word not in vocabulary]
    if unknown:
        raise CaptionError(f"caption {text!r}: unknown word {unknown[0]!r}")
    return words


class Reader:
    """Recursive descent over the words of one caption."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.position = 0

    def fail(self, wanted: str) -> CaptionError:
        rest = self.words[self.position :]
        found = repr(rest[0]) if rest else "the end"
        text = " ".join(self.words)
        return CaptionError(
            f"caption {text!r}: wanted {wanted} at word {self.position + 1}, found {found}"
        )

    def peek(self) -> str | None:
        return self.words[self.position] if self.position < len(self.words) else None

    def take(self, *words: str) -> bool:
        """Consume the words if they come next."""
        if tuple(self.words[self.position : self.position + len(words)]) != words:
            return False
        self.position += len(words)
        return True

    def caption(self) -> tuple[list[Phrase], list[Phrase], str | None]:
        """Return the phrase of each object, each phrase once, and the relation."""
        numeral = self.peek()
        if numeral in _NUMERALS:
            self.position += 1
            counted = self.noun_phrase(_SINGULARS)
            phrases, slots = [counted] * _NUMERALS[numeral], [counted]
            if numeral == "two" and self.take("and"):
                other = self.phrase()
                phrases, slots = [*phrases, other], [*slots, other]
            self.end()
            return phrases, slots, None
        slots = [self.phrase()]
        for words, relation in _RELATION_WORDS.items():
            if self.take(*words):
                slots.append(self.phrase())
                self.end()
                return slots, slots, relation
        if self.take("with"):
            slots.append(self.phrase())
        else:
            while len(slots) < 3 and self.take("and"):
                slots.append(self.phrase())
        self.end()
        return slots, slots, None

    def end(self) -> None:
        if self.peek() is not None:
            raise self.fail("the end of the caption")

    def phrase(self) -> Phrase:
        if self.take("a"):
            return self.noun_phrase({noun: noun for noun in _PLURALS})
        if not self.take("something"):
            raise self.fail("'a' or 'something'")
        size = self.size()
        return Phrase(size, None if size else self.colour())

    def noun_phrase(self, nouns: dict[str, str]) -> Phrase:
        size, colour, noun = self.size(), self.colour(), self.peek()
        if noun not in nouns:
            raise self.fail("a noun")
        self.position += 1
        return Phrase(size, colour, nouns[noun] if nouns[noun] in SHAPES else None)

    def size(self) -> str | None:
        word = self.peek()
        if word not in SIZE_WORDS:
            return None
        self.position += 1
        return SIZE_WORDS[word]

    def colour(self) -> str | None:
        word = self.peek()
        if word not in COLOURS:
            return None
        self.position += 1
        return word


def split_of(text: str) -> Split:
    """Which split a caption's text belongs to: six tenths train, two held out, two evaluation."""
    return _SPLIT_OF_TENTH[int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 10]


def noisy_text(text: str, share: float, draws: np.random.Generator) -> str:
    """A caption as careless captioning has it; it stays within the grammar.

    Each word that states a shape, colour, size or relation is drawn anew from the words of its kind
    with probability ``share``.
    """
    words = text.split()
    for place, word in enumerate(words):
        for kind in _KINDS:
            if word in kind and draws.random() < share:
                words[place] = pick(draws, kind)
    return " ".join(words)


def sample_captions(
    count: int, seed: int, split: Split = "train", *, distinct: bool = True
) -> list[Caption]:
    """Draw captions of one split; equal arguments give equal captions.

    How open a caption is varies evenly from fully specified to fully open.

    Args:
        count: how many captions.
        seed: any non-negative integer.
        split: captions of different splits never share a text, whatever the seeds.
        distinct: no text twice (otherwise short captions come back often).

    Raises:
        ValueError: a negative count, an unknown split, or more distinct captions than there are.
    """
    generator = numpy_generator(seed, "captions", split)
    texts = draw_texts(count, split, lambda: _draw_text(generator), distinct=distinct)
    return [parse(text) for text in texts]


def draw_texts(
    count: int, split: Split, draw: Callable[[], str], *, distinct: bool = True
) -> list[str]:
    """Call ``draw`` until it has given ``count`` texts of a split.

    Raises:
        ValueError: a negative count, an unknown split, or more distinct texts than are found.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, allowed: {', '.join(SPLITS)}")
    if count < 0:
        raise ValueError(f"count is {count}, it must not be negative")
    seen: set[str] = set()
    texts: list[str] = []
    misses = 0  # in a row
    while len(texts) < count:
        misses += 1
        if misses > MISSES:
            raise ValueError(f"could not find {count} distinct captions in split {split!r}")
        text = draw()
        if split_of(text) != split or (distinct and text in seen):
            continue
        seen.add(text)
        texts.append(text)
        misses = 0
    return texts


def _draw_text(generator: np.random.Generator) -> str:
    """Draw one caption text of at most MAX_WORDS words."""
    while True:
        openness = float(generator.uniform()) ** 0.7  # evens out what `distinct` rejects
        form = generator.choice(5, p=(0.22, 0.46, 0.16, 0.08, 0.08))
        if form == 0:
            words = draw_phrase(generator, openness)
        elif form == 1:
            if generator.uniform() < openness:
                joiner = [pick(generator, _JOINERS)]
            else:
                relation = pick(generator, RELATIONS)
                options = [words for words, name in _RELATION_WORDS.items() if name == relation]
                joiner = list(options[generator.integers(len(options))])
            left, right = (draw_phrase(generator, openness) for _ in range(2))
            words = [*left, *joiner, *right]
        elif form == 2:
            words = _draw_counted(generator, openness, pick(generator, tuple(_NUMERALS)))
        elif form == 3:
            counted = _draw_counted(generator, openness, "two")
            words = [*counted, "and", *draw_phrase(generator, openness)]
        else:
            first, second, third = (draw_phrase(generator, openness) for _ in range(3))
            words = [*first, "and", *second, "and", *third]
        if len(words) <= MAX_WORDS:
            return " ".join(words)


def pick(generator: np.random.Generator, options: tuple[str, ...]) -> str:
    """One of the options, all equally likely."""
    return options[int(generator.integers(len(options)))]


def _draw_adjectives(generator: np.random.Generator, openness: float) -> list[str]:
    """Draw a size and a colour, each left out with probability ``openness``."""
    words = []
    if generator.uniform() >= openness:
        words.append(pick(generator, tuple(SIZE_WORDS)))
    if generator.uniform() >= openness:
        words.append(pick(generator, COLOURS))
    return words


def draw_phrase(generator: np.random.Generator, openness: float) -> list[str]:
    """Words of one object; each attribute is left open with probability ``openness``."""
    adjectives = _draw_adjectives(generator, openness)
    if generator.uniform() >= openness:
        return ["a", *adjectives, pick(generator, SHAPES)]
    if len(adjectives) < 2 and generator.uniform() < 0.3:
        return ["something", *adjectives]
    return ["a", *adjectives, pick(generator, OPEN_NOUNS)]


def _draw_counted(generator: np.random.Generator, openness: float, numeral: str) -> list[str]:
    adjectives = _draw_adjectives(generator, openness)
    nouns = SHAPES if generator.uniform() >= openness else OPEN_NOUNS
    return [numeral, *adjectives, _PLURALS[pick(generator, nouns)]]
