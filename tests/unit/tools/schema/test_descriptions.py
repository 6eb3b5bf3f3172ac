"""A key is described by the comments beside and above it."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from bpgo.config.fields import Strict
from bpgo.errors import UserError
from bpgo.tools.schema.descriptions import comments_of, description_of, settings_classes


class Above(Strict):
    """A base."""

    inherited: int  # of the base
    repeated: int  # of the base too


class Example(Above):
    """One field of each kind."""

    beside: int  # so many; None: all
    # Above it, in
    # two lines.
    above: int
    # First this,
    both: int = 1  # then that
    several: list[int] = [  # noqa: RUF012
        1,  # of several lines
    ]
    # Of a group of keys.

    apart: int  # alone
    silent: int
    repeated: int = 2


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("beside", "so many; null: all"),
        ("above", "Above it, in two lines."),
        ("both", "First this, then that"),
        ("several", "of several lines"),
        ("apart", "alone"),
        ("inherited", "of the base"),
        ("repeated", "of the base too"),
    ],
)
def test_comments_describe(field: str, wanted: str) -> None:
    assert description_of(Example, field) == wanted


def test_a_key_without_a_comment_is_named() -> None:
    assert comments_of(Example)["silent"] == ""
    with pytest.raises(UserError, match=r"test_descriptions.py: Example.silent: has no descr"):
        description_of(Example, "silent")


@pytest.mark.parametrize("model", settings_classes(), ids=lambda model: model.__name__)
def test_every_key_has_a_description(model: type[BaseModel]) -> None:
    for field in model.model_fields:
        assert len(description_of(model, field)) > 3, f"{model.__name__}.{field}"


def test_all_settings_are_found() -> None:
    names = {model.__name__ for model in settings_classes()}
    # a block, a family's base, a part of a union, a rule in a rule, an arm, a kind of each registry
    assert names >= {"LoraSettings", "TrackerSettings", "PaperSettings", "BpgoSettings"}
    assert names >= {"VipoSettings", "WeightedSumSettings", "PatchesSettings", "PromptFileSettings"}
