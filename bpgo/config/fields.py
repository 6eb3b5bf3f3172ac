"""What settings are made of: strict records and the kinds of values they hold."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from bpgo.errors import shown

NAME = r"^[a-z0-9_]+$"
NAME_LENGTH = 100  # names become folders and files
LARGEST = 2**31 - 1  # what tables and random number generators hold
SMALLEST, HUGEST = 1e-30, 1e30  # of numbers, in size: what float32 holds, with room for sums
COMMIT = r"^[0-9a-f]{40}$"
SHA256 = r"^[0-9a-f]{64}$"
DOTTED = r"^[a-z0-9_]+(\.[a-z0-9_]+)*$"  # the way down to a setting
EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]{1,4}", re.ASCII)
TITLE_LENGTH = 300
# Line ends, other control characters, and those that turn the direction of what follows.
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text; take it as the number it is."""
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        return float(value)
    return value


def _of_float32(value: float) -> float:
    """Refuse what would be 0 or infinite where it is used."""
    if value and math.isfinite(value) and not SMALLEST <= abs(value) <= HUGEST:
        raise ValueError(
            f"{value:g} is not allowed: it must be 0, or from {SMALLEST:g} to {HUGEST:g} in size"
        )
    return value


def _value(value: Any) -> Any:
    if not isinstance(value, (bool, int, float, str)) or value == "":
        raise ValueError(f"must be a number or a word, not {shown(value)}")
    found = _number(value)
    if isinstance(found, int) and abs(found) > LARGEST:
        raise ValueError(f"{shown(value)} is not allowed: it must be at most {LARGEST} in size")
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError(f"must be finite, not {shown(value)}")
    return found


Number = Annotated[
    float,
    BeforeValidator(_number),
    AfterValidator(_of_float32),
    Field(allow_inf_nan=False),
]
# What a setting may be: a number, also as `1e-4`, a word, or true and false.
Value = Annotated[
    bool | int | float | str,
    BeforeValidator(_value),
]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Fraction = Annotated[Number, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Few = Annotated[int, Field(ge=1, le=10_000)]  # of what is held or gone through at once
Many = Annotated[int, Field(ge=1, le=1_000_000)]  # of what is listed
Steps = Annotated[int, Field(ge=2, le=1000)]  # of a sampler: noise levels were trained for 1000
Pixels = Annotated[int, Field(ge=1, le=2**14)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Name = Annotated[str, Field(pattern=NAME, max_length=NAME_LENGTH)]
Revision = Annotated[str, Field(pattern=COMMIT)]  # of other people's repositories
Task = Literal["t2i", "t2v", "i2v"]  # text to image, text to video, image to video
Schedule = Literal["pipeline", "static", "flux", "sd3", "unipc_0_36"]
# Classifier-free guidance; [high, low]: of a model's experts for high and for low noise.
Guidance = NonNegative | Annotated[list[NonNegative], Field(min_length=2, max_length=2)]


def _one_line(value: str) -> str:
    """Titles stand in tables, figures and file names: no line ends."""
    if not value.strip() or CONTROL.search(value):
        raise ValueError(f"{shown(value)} is not allowed: it must be one line of visible text")
    return value


Title = Annotated[str, Field(max_length=TITLE_LENGTH), AfterValidator(_one_line)]
Column = Title  # of a table in a file, by its name
Line = Annotated[str, AfterValidator(_one_line)]  # what other people's files are called


def each_once(values: list[Any]) -> list[Any]:
    """Refuse what is listed twice: it would be made once, or twice in one place."""
    twice = [value for at, value in enumerate(values) if value in values[:at]]
    if twice:
        raise ValueError(f"{shown(twice[0])} is listed twice")
    return values


class Strict(BaseModel):
    """Frozen, typed, and no key that the schema does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, serialize_by_alias=True
    )
