"""Mistakes that would show after all training, or never, are refused before the first job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shipped_config import refusal, spoil

BAD: dict[str, tuple[str, Any, list[str]]] = {
    "nothing to compare": (
        "experiments",
        {},
        ["my.yaml: experiments: {} is not allowed: it must be", "at least 1 entr"],
    ),
    "one sample to measure a distance by": (
        "evaluation",
        {"prompts": 1, "curve_prompts": 1, "steps": 2},
        ["my.yaml: evaluation.prompts: 1 with evaluation.samples_per_prompt 1", "two are needed"],
    ),
    "a seed that becomes another": (
        "experiments.clear.seeds",
        [2**31],
        ["experiments.clear.seeds.0: 2147483648", "less than or equal to 2147483647"],
    ),
    "a seed twice": ("experiments.clear.seeds", [1, 2, 1], ["clear.seeds: 1 is listed twice"]),
    "an arm twice": (
        "experiments.clear.arms",
        ["grpo", "bpgo", "grpo"],
        ["my.yaml: experiments.clear.arms: 'grpo' is listed twice"],
    ),
    "a judge twice": ("experiments.clear.judges", ["oracle", "oracle"], ["'oracle' is listed tw"]),
    "a sweep value twice": ("sweeps.alpha.values", [0.1, 0.1], ["sweeps.alpha.values: 0.1 is l"]),
    "sweep values of one name": (
        "sweeps.alpha.values",
        [0.12345678, 0.12345679],
        ["my.yaml: sweeps.alpha: arm 'bpgo_ras_alpha_0p123457' is there already"],
    ),
    "a misspelt reference arm": (
        "analysis.reference_arm",
        "grpoo",
        ["my.yaml: analysis.reference_arm: 'grpoo' is not an arm", "Did you mean 'grpo'?"],
    ),
    "a name that no folder can have": (
        "experiments.clear.arms",
        ["x" * 5000],
        ["experiments.clear.arms.0", "at most 100 characters"],
    ),
    "a file's name that is none": ("model", "../models/scenes", ["model: '../models/scenes' is u"]),
    "a file's name without end": ("model", "x" * 5000, ["my.yaml: model: 'xxx", "is unknown"]),
    "guidance of a model without it": (
        "rollout.guidance_scale",
        3.5,
        ["my.yaml: rollout.guidance_scale: 3.5 cannot act", "has no guidance"],
    ),
    "true in the place of 1": (
        "overrides",
        {"arms": {"grpo": {"advantage": {"ddof": True}}}},
        ["advantage.ddof: True is not allowed", "a whole number"],
    ),
    "more frames a second than a file can have": (
        "overrides",
        {"models": {"scenes": {"frames_per_second": 1e30}}},
        ["frames_per_second: 1e+30", "less than or equal to 1000"],
    ),
    "a wrong key for smaller runs": (
        "smoke.banana",
        1,
        ["my.yaml: smoke.banana: unknown key. Allowed: analysis, calibration"],
    ),
    "what only a resolved configuration has, for smaller runs": (
        "smoke.arms",
        {"grpo": {"noise_level": 1}},
        ["my.yaml: smoke.arms: unknown key."],
    ),
    "an empty change of an arm": (
        "overrides.arms",
        {"grpo": {"advantage": {}}},
        ["(with my.yaml: overrides.arms.grpo): advantage: is empty, which changes nothing of {"],
    ),
    "an empty change of a rule": (
        "overrides.arms",
        {"bpgo": {"trust": {}}},
        ["(with my.yaml: overrides.arms.bpgo): trust: is empty, which changes nothing of 'bpgo'"],
    ),
    "an architecture that is none": (
        "overrides.rewards",
        {"hpsv21": {"architecture": "ViT-H-14 "}},
        ["hpsv21): architecture: open_clip knows no 'ViT-H-14 '. Did you mean 'ViT-H-14'?"],
    ),
    "a file of an architecture that is not there": (
        "overrides.rewards",
        {"hpsv21": {"architecture": "no/such.json"}},
        ["hpsv21): architecture: there is no file 'no/such.json'"],
    ),
    "a repository that the hub cannot have": (
        "overrides.rewards",
        {"hpsv21": {"path": "-xswu/HPSv2/x.pt"}},
        ["hpsv21): path: there is no file or folder '-xswu/HPSv2/x.pt'"],
    ),
    "a key with a blank at its end": (
        "rollout.steps ",
        6,
        ["my.yaml: rollout.'steps ': unknown key. Did you mean 'steps'?"],
    ),
    "an empty key": ("rollout.", 6, ["my.yaml: rollout.'': unknown key."]),
    "a wrong key in a rule that no arm has": (
        "overrides.trust",
        {"pessimistic": {"banana": 3}},
        ["my.yaml: overrides.trust.pessimistic", "banana: unknown key"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case: str, values: dict[str, Any], folder: Path) -> None:
    key, value, wanted = BAD[case]
    if "hpsv21" in str(value):
        values["experiments"]["clear"]["judges"].append("hpsv21")
    message = refusal(spoil(values, key, value), folder)
    assert not [word for word in wanted if word not in message], message


def test_a_diagnostic_takes_no_column(values: dict[str, Any], folder: Path) -> None:
    """Its scores would stand in the place of the run's own weights."""
    reward = folder / "rewards" / "oracle.yaml"
    (folder / "rewards" / "weight.yaml").write_text(reward.read_text())
    message = refusal(spoil(values, "experiments.clear.diagnostics", ["weight"]), folder)
    assert "experiments.clear.diagnostics: 'weight' is the name of a column" in message
