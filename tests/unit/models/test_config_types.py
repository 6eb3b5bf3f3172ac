"""The kinds of a configuration's values against the arguments of its class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from wan_cases import T2V, WanFolders, clips_of

from bpgo.errors import UserError
from bpgo.models.config_types import check_types


class Other:
    """Of which no file holds an instance."""


class Part:
    """As diffusers writes its classes: annotated, and not checked."""

    def __init__(
        self,
        eps: float = 1e-6,
        heads: int = 4,
        norm: str | None = None,
        sizes: tuple[int, ...] = (1, 2),
        share: Optional[bool] = None,  # noqa: UP045 (as older files of diffusers say it)
        flow: bool = True,
        spacing: Literal["even", "odd"] = "even",
        offset: int = 0,
        width: int = None,  # noqa: RUF013 (the same)
        solver: Other = None,
        betas: Other | list[float] | None = None,
        anything: Any = None,
    ) -> None: ...


@pytest.mark.parametrize(
    "values",
    [
        {"eps": 1, "heads": 4, "norm": "rms", "sizes": [1, 2], "share": True, "spacing": "odd"},
        dict.fromkeys(("norm", "share", "width", "solver", "betas", "anything")),  # null
        {"share": 0.1, "heads": 2.5, "flow": False},
        {"betas": [0.1], "anything": {}, "not_an_argument": {}},
        {"sizes": [], "offset": 0, "heads": 0, "width": -1},
    ],
)
def test_what_may_be(values: dict[str, Any]) -> None:
    check_types(values, Part)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("eps", "banana", "a number"),
        ("eps", None, "a number"),
        ("eps", -1, "above 0"),
        ("heads", [], "a number"),
        ("heads", True, "a number"),
        ("heads", -1, "0 or more"),
        ("norm", 3, "a text"),
        ("sizes", 3, "a list"),
        ("sizes", [1, "x"], "a list"),
        ("share", {}, "true or false or a number"),
        ("flow", 3, "true or false"),
        ("spacing", "near", "'even' or 'odd'"),
        ("spacing", None, "'even' or 'odd'"),
        ("solver", "x", "null"),
        ("betas", "x", "null or a list"),
    ],
)
def test_what_may_not(key: str, value: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' is .*, but must be {wanted}$"):
        check_types({key: value}, Part)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("transformer", {"eps": "banana"}),
        ("vae", {"patch_size": []}),
        ("vae", {"latents_std": None}),
    ],
)
def test_a_value_that_the_libraries_take_is_refused(
    part: str, values: dict[str, Any], wan_folders: WanFolders, tmp_path: Path
) -> None:
    """They ended in a TypeError, once all was loaded."""
    folder = Path(shutil.copytree(wan_folders(T2V), tmp_path / "policy"))
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    with pytest.raises(UserError, match=f"{part}: cannot be loaded as .* must be a (number|list)"):
        T2V.policy(folder)


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("transformer/config.json", {"num_layers": 0}, "it has no place for"),
        ("scheduler/scheduler_config.json", {"use_dynamic_shifting": True}, "cannot be used"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "cannot be used"),
        ("vae/config.json", {"patch_size": 1000}, "cannot be used"),
        ("vae/config.json", {"scale_factor_spatial": 0}, "makes 0 pixels of a row"),
        ("transformer/config.json", {"patch_size": [1, 0, 0]}, "patch_embedding.weight expected"),
        ("vae/config.json", {"latents_mean": [0.0]}, "'latents_mean' has 1 numbers"),
        ("text_encoder/config.json", {"relative_attention_max_distance": 0}, "cannot be used"),
    ],
)
def test_a_value_that_does_not_fit_the_rest_is_told(
    file: str, values: dict[str, Any], words: str, wan_folders: WanFolders, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(wan_folders(T2V), tmp_path / "policy"))
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(UserError, match=f"{path.parent}.*: .*{words}"):
        clips_of(T2V, T2V.policy(folder), [])
