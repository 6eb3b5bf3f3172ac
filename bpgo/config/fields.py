"""What settings are made of: strict records and the kinds of values they hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME = r"^[a-z0-9_]+$"
NAME_LENGTH = 100  # names become folders and files
LARGEST = 2**31 - 1  # what tables and random number generators hold


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text; take it as the number it is."""
    if isinstance(value, str) and value.isascii():
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Name = Annotated[str, Field(pattern=NAME, max_length=NAME_LENGTH)]
Task = Literal["t2i", "t2v", "i2v"]  # text to image, text to video, image to video
Schedule = Literal["pipeline", "static", "flux", "sd3", "unipc_0_36"]
# Classifier-free guidance; [high, low]: of a model's experts for high and for low noise.
Guidance = NonNegative | Annotated[list[NonNegative], Field(min_length=2, max_length=2)]


def each_once(values: list[Any]) -> list[Any]:
    """Refuse what is listed twice: it would be made once, or twice in one place."""
    twice = [value for at, value in enumerate(values) if value in values[:at]]
    if twice:
        raise ValueError(f"{twice[0]!r} is listed twice")
    return values


class Strict(BaseModel):
    """Frozen, typed, and no key that the schema does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, serialize_by_alias=True
    )
