"""Revisions of other people's files: a commit, or none; a branch moves, and no text is a commit."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from bpgo.config.model import ModelSettings
from bpgo.prompts.file import PromptFileSettings
from bpgo.registry import FEATURES, REWARDS, load_features_class, load_reward_class

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KINDS = {
    "model": ModelSettings,
    "prompts": PromptFileSettings,
    **{name: load_features_class(name).Settings for name in FEATURES},
    **{name: load_reward_class(name).Settings for name in REWARDS},
}
KEYS = [
    (name, key) for name, kind in KINDS.items() for key in kind.model_fields if "revision" in key
]


def test_all_are_found() -> None:
    found = {key for _, key in KEYS}
    assert found >= {"revision", "clip_revision", "processor_revision", "tokenizer_revision"}
    assert {"model", "prompts", "dinov2", "videoalign"} <= {name for name, _ in KEYS}


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_only_a_commit(name: str, key: str) -> None:
    setting = TypeAdapter(KINDS[name].model_fields[key].annotation)
    assert setting.validate_python(COMMIT) == COMMIT
    assert setting.validate_python(None) is None
    for value in ("", "main", COMMIT[:12], COMMIT.upper(), f"{COMMIT}\n", f"\u202e{COMMIT}", 7):
        with pytest.raises(ValidationError):
            setting.validate_python(value)
