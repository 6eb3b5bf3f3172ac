"""Values of a part's configuration against what its class in diffusers takes.

diffusers checks none of them: a word in the place of a number is a TypeError in the middle of a
forward pass. Its annotations are not always exact (`shift_terminal: bool | None` of UniPC is a
float), so only the kind of a value counts: text, number (true and false too), list or object.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bpgo.errors import shown

KINDS: dict[type, str] = {
    **dict.fromkeys((int, float, bool), "number"),
    str: "text",
    **dict.fromkeys((list, tuple), "list"),
    dict: "object",
}


def check_types(values: Mapping[str, Any], chosen: Any) -> None:
    """Refuse values of another kind than the arguments of a class's `__init__`.

    null may always be; so may anything where the annotation says nothing that we know.

    Raises:
        ValueError: which names the key, the value and what is allowed.
    """
    try:
        hints = get_type_hints(chosen.__init__)
    except (NameError, TypeError):  # of names that only a type checker imports
        return
    for key, value in values.items():
        allowed = _choices(hints.get(key, Any))
        if not any(_fits(value, one) for one in allowed):
            kinds = " or ".join(dict.fromkeys(map(_kind_of, allowed)))
            raise ValueError(f"'{key}' is {shown(value)}, but must be a {kinds}")


def _choices(hint: Any) -> tuple[Any, ...]:
    union = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(each for each in union if each is not NoneType)


def _fits(value: Any, hint: Any) -> bool:
    kind = _kind_of(hint)
    if value is None or kind not in KINDS.values():
        return True
    if KINDS.get(type(value)) != kind:
        return False
    if not isinstance(value, list):
        return True
    items = [each for each in get_args(hint) if each is not Ellipsis]
    return not items or all(any(_fits(each, item) for item in items) for each in value)


def _kind_of(hint: Any) -> str:
    if get_origin(hint) is Literal:
        hint = type(get_args(hint)[0])
    plain = get_origin(hint) or hint
    return KINDS.get(plain, getattr(plain, "__name__", str(plain)))
