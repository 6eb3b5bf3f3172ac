"""Values of a part's configuration against the arguments of its class in diffusers.

diffusers checks none of them: a word in the place of a number is a TypeError in the middle of a
forward pass, and a number of layers below what the weights hold is another model. Its annotations
are not always exact (`shift_terminal: bool | None` of UniPC is a float), so a value's kind counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bpgo.errors import shown

KINDS: dict[Any, str] = {
    bool: "true or false",
    **dict.fromkeys((int, float), "a number"),
    str: "a text",
    **dict.fromkeys((list, tuple), "a list"),
    dict: "an object",
}


def check_types(values: Mapping[str, Any], chosen: Any) -> None:
    """Refuse values that the arguments of a class's `__init__` cannot be.

    Of another kind, not among a `Literal`'s words, null where the annotation and the default say
    nothing of it, or a number below those that its default says: a size of 0, a negative count.

    Raises:
        ValueError: which names the key, the value and what is allowed.
    """
    try:
        hints = get_type_hints(chosen.__init__)
    except (NameError, TypeError):  # of names that only a type checker imports
        return
    for name, argument in signature(chosen.__init__).parameters.items():
        if name in values and (allowed := _wanted(values[name], hints.get(name, Any), argument)):
            raise ValueError(f"'{name}' is {shown(values[name])}, but must be {allowed}")


def _wanted(value: Any, hint: Any, argument: Parameter) -> str:
    """What the value must be instead; empty where it may be."""
    union = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [each for each in union if each is not NoneType]
    if value is None:
        return "" if len(kinds) < len(union) or argument.default is None else _said(kinds)
    if len(kinds) < len(union) and bool in kinds:  # where annotations were seen to be wrong
        kinds.append(float)
    if not any(_fits(value, kind) for kind in kinds):
        return _said(kinds)
    if not (_is_number(value) and _is_number(argument.default)):
        return ""
    if int in kinds:  # a count of layers or blocks may be 0
        return "0 or more" if value < 0 <= argument.default else ""
    return "above 0" if value <= 0 < argument.default else ""


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    plain = get_origin(hint) or hint
    if plain not in KINDS:  # a class of which a file holds no instance, or a hint that says nothing
        return plain is Any or not isinstance(plain, type)
    if KINDS.get(type(value)) != KINDS[plain]:
        return False
    items = [each for each in get_args(hint) if each is not Ellipsis]
    if not items or not isinstance(value, list):
        return True
    return all(any(_fits(each, item) for item in items) for each in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _said(kinds: list[Any]) -> str:
    words: list[str] = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            words += map(repr, get_args(kind))
        else:
            words.append(KINDS.get(get_origin(kind) or kind, "null"))
    return " or ".join(dict.fromkeys(words))
