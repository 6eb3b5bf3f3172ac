"""The kinds of a configuration's values against the arguments of its class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from wan_cases import T2V, WanFolders

from bpgo.errors import UserError
from bpgo.models.config_types import check_types


class Part:
    """As diffusers writes its classes: annotated, and not checked."""

    def __init__(
        self,
        eps: float = 1e-6,
        heads: int = 4,
        norm: str | None = None,
        sizes: tuple[int, ...] = (1, 2),
        share: Optional[bool] = None,  # noqa: UP045 (as older files of diffusers say it)
        spacing: Literal["even", "odd"] = "even",
        other: Path | list[float] | None = None,
    ) -> None: ...


@pytest.mark.parametrize(
    "values",
    [
        {"eps": 1, "heads": 4, "norm": "rms", "sizes": [1, 2], "share": True, "spacing": "odd"},
        dict.fromkeys(("eps", "heads", "norm", "sizes", "share", "spacing", "other")),  # null
        {"share": 0.1, "heads": 2.5, "eps": False},  # annotations say no more than the kind
        {"other": "anything", "not_an_argument": {}},
        {"sizes": []},
    ],
)
def test_what_may_be(values: dict[str, Any]) -> None:
    check_types(values, Part)


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("eps", "banana", "number"),
        ("heads", [], "number"),
        ("norm", 3, "text"),
        ("sizes", 3, "list"),
        ("sizes", [1, "x"], "list"),
        ("share", {}, "number"),
        ("spacing", 3, "text"),
    ],
)
def test_what_may_not(key: str, value: Any, kind: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' is .*must be a {kind}"):
        check_types({key: value}, Part)


@pytest.mark.parametrize(
    ("part", "values"),
    [("transformer", {"eps": "banana"}), ("vae", {"patch_size": []})],
)
def test_a_value_that_the_libraries_take_is_refused(
    part: str, values: dict[str, Any], wan_folders: WanFolders, tmp_path: Path
) -> None:
    """They ended in a TypeError, once all was loaded."""
    folder = Path(shutil.copytree(wan_folders(T2V), tmp_path / "policy"))
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    with pytest.raises(UserError, match=f"{part}: cannot be loaded as .*must be a number"):
        T2V.policy(folder)
