"""What each key of a settings class means: the comments beside and above it in its source.

So a key is described in one place, where it is defined.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterable
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from bpgo import registry
from bpgo.config.model import ModelSettings
from bpgo.config.search import SearchSettings
from bpgo.config.settings import Settings
from bpgo.errors import UserError

REGISTERED = (
    (registry.ARMS, registry.load_arm_class),
    (registry.TRUST, registry.load_trust_class),
    (registry.REWARDS, registry.load_reward_class),
    (registry.FEATURES, registry.load_features_class),
    (registry.PROMPTS, registry.load_prompts_class),
)


def settings_classes() -> list[type[BaseModel]]:
    """Every class whose fields are keys of a file, those of all registered kinds included."""
    starts: list[type[BaseModel]] = [Settings, ModelSettings, SearchSettings]
    for names, load in REGISTERED:
        starts += [load(name).Settings for name in names]
    found: dict[type[BaseModel], None] = {}
    _walk(starts, found)
    return list(found)


def description_of(model: type[BaseModel], field: str) -> str:
    """The comment of `field` in the class that defines it, or in the nearest base that has one.

    Raises:
        UserError: if no class says anything of it.
    """
    for owner in model.__mro__:
        if owner is BaseModel:
            break
        if issubclass(owner, BaseModel) and (said := comments_of(owner).get(field)):
            return said
    raise UserError(
        f"{inspect.getsourcefile(model)}: {model.__name__}.{field}: has no description; write a"
        " comment beside or above it"
    )


@cache
def comments_of(model: type[BaseModel]) -> dict[str, str]:
    """By field of this very class: the comment lines above it, then those beside it.

    A blank line ends what stands above. Python's None is the files' null.
    """
    source = textwrap.dedent(inspect.getsource(model))
    comments, alone = _comments(source)
    found = {}
    [body] = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above: list[str] = []
        line = node.lineno - 1
        while line in alone:
            above.insert(0, comments[line])
            line -= 1
        assert node.end_lineno is not None
        lines = range(node.lineno, node.end_lineno + 1)
        words = [*above, *(comments[each] for each in lines if each in comments)]
        found[node.target.id] = re.sub(r"\bNone\b", "null", " ".join(words))
    return found


def _walk(kinds: Iterable[Any], found: dict[type[BaseModel], None]) -> None:
    """Put the settings classes that some types are made of into `found`."""
    for kind in kinds:
        if not isinstance(kind, type) or get_args(kind):
            _walk(get_args(kind), found)
        elif issubclass(kind, BaseModel) and kind is not BaseModel and kind not in found:
            found[kind] = None
            _walk([field.annotation for field in kind.model_fields.values()], found)


def _comments(source: str) -> tuple[dict[int, str], set[int]]:
    """Comments by line, without `noqa` and the like; the lines that hold nothing else."""
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        text = token.string.lstrip("#").strip()
        if not text.startswith(("noqa", "type:")):
            comments[token.start[0]] = text
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    return comments, alone
