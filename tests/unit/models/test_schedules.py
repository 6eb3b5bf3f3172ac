"""Noise levels by name, against published ones; judging apart from training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pipeline_cases import FLUX, SD3, STEPS, Case, Folders
from tiny_world import tiny_settings
from torch import Tensor
from wan_cases import T2V, WAN_CASES, WanFolders

from bpgo.errors import UserError
from bpgo.models import pipeline
from bpgo.steps.prompts import write_prompts
from bpgo.steps.sample import sample_base

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "cases"


def published(name: str) -> tuple[Tensor, dict[str, Any]]:
    """Sigmas of a golden case, and the arguments that gave them."""
    manifest = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))
    (entry,) = (case for case in manifest["cases"] if case["id"] == name)
    with np.load(GOLDEN / entry["npz"], allow_pickle=False) as stored:
        return torch.from_numpy(stored["out_sigmas"]), entry["args"]


def assert_published(found: Tensor, name: str) -> None:
    torch.testing.assert_close(found, published(name)[0], rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    "name", ["sched_dance_n20_shift3", "sched_dance_n25_shift3", "sched_dance_n16_shift5"]
)
def test_any_model_takes_dancegrpos(name: str, folders: Folders, wan_folders: WanFolders) -> None:
    arguments = published(name)[1]
    keys = {"schedule": "static", "flow_shift": arguments["shift"]}
    for policy in (
        FLUX.policy(folders(FLUX), **keys),  # its own shift is dynamic
        SD3.policy(folders(SD3), **keys),
        T2V.policy(wan_folders(T2V), **keys),
    ):
        assert_published(policy.sigmas(arguments["steps"]), name)


def test_wan_takes_the_older_unipc(wan_folders: WanFolders) -> None:
    name = "sched_wan_unipc_flow_shift3_n50"
    assert_published(T2V.policy(wan_folders(T2V), schedule="unipc_0_36").sigmas(50), name)
    euler = WAN_CASES["euler, no guidance"]  # its own shift is 5
    policy = euler.policy(wan_folders(euler), schedule="unipc_0_36", flow_shift=3.0)
    assert_published(policy.sigmas(50), name)
    assert policy.sigmas(50)[0] == pytest.approx(0.9996664, abs=1e-7)
    ours = T2V.policy(wan_folders(T2V)).sigmas(50)
    assert 2e-3 < (ours - policy.sigmas(50)).abs().max() < 3e-3


def test_sd3_and_flux_are_published(folders: Folders) -> None:
    policy = SD3.policy(folders(SD3), schedule="sd3", flow_shift=3.0)
    assert_published(policy.sigmas(40), "sched_sd3_shift3_n40")
    torch.testing.assert_close(
        SD3.policy(folders(SD3), flow_shift=3.0).sigmas(40), policy.sigmas(40), rtol=0, atol=2e-7
    )
    flux = FLUX.policy(folders(FLUX), schedule="flux")
    assert flux.latent_shape[0] == 9  # tokens: mu = .5 + (9 - 256) (1.15 - .5) / (4096 - 256)
    shift = np.exp(0.5 - 247 * 0.65 / 3840)
    even = torch.linspace(1, 1 / STEPS, STEPS, dtype=torch.float64)
    expected = torch.cat([shift * even / (1 + (shift - 1) * even), torch.zeros(1)]).float()
    torch.testing.assert_close(flux.sigmas(STEPS), expected, rtol=0, atol=2e-7)


def test_without_a_shift_it_is_the_pipelines(folders: Folders) -> None:
    static = Case("flux", FLUX.build, 1.0, {"shift": 3.0})
    found = static.policy(folders(static), schedule="static").sigmas(20)
    assert_published(found, "sched_dance_n20_shift3")
    assert_published(static.policy(folders(static)).sigmas(20), "sched_dance_n20_shift3")


def grids(policy: Any) -> tuple[Tensor, Tensor]:
    """Of training and of judging."""
    return policy.sigmas(20), policy.sigmas(20, evaluation=True)


def test_judging_is_as_training_unless_told(folders: Folders, wan_folders: WanFolders) -> None:
    training, judging = grids(FLUX.policy(folders(FLUX), schedule="static", flow_shift=3.0))
    assert_published(training, "sched_dance_n20_shift3")
    assert torch.equal(training, judging)

    own = FLUX.policy(folders(FLUX)).sigmas(20)
    training, judging = grids(
        FLUX.policy(
            folders(FLUX), schedule="static", flow_shift=3.0, evaluation_schedule="pipeline"
        )
    )
    assert_published(training, "sched_dance_n20_shift3")
    assert torch.equal(judging, own)

    folder = wan_folders(T2V)
    training, judging = grids(T2V.policy(folder, flow_shift=8.0, evaluation_flow_shift=5.0))
    assert torch.equal(training, T2V.policy(folder, flow_shift=8.0).sigmas(20))
    assert torch.equal(judging, T2V.policy(folder, flow_shift=5.0).sigmas(20))
    training, judging = grids(T2V.policy(folder, flow_shift=8.0, evaluation_schedule="unipc_0_36"))
    assert torch.equal(training, T2V.policy(folder, flow_shift=8.0).sigmas(20))
    own = T2V.policy(folder, schedule="unipc_0_36", flow_shift=3.0).sigmas(20)  # the scheduler's
    assert torch.equal(judging, own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"flow_shift": 3.0},
            "flow_shift: 3: with schedule pipeline .* schedule to static",
        ),
        ({"schedule": "flux", "flow_shift": 3.0}, "flow_shift: 3: with schedule flux the shift"),
        ({"schedule": "static"}, "flow_shift: schedule static needs a number above 0"),
        ({"schedule": "sd3"}, "schedule: sd3: a model of kind 'flux' has pipeline, static or flux"),
        ({"schedule": "unipc_0_36"}, "schedule: unipc_0_36: a model of kind 'flux' has"),
        ({"evaluation_flow_shift": 2.0}, "evaluation_flow_shift: 2: with evaluation_schedule pipe"),
        ({"evaluation_schedule": "static"}, "evaluation_flow_shift: schedule static needs a"),
        ({"evaluation_schedule": "sd3"}, "evaluation_schedule: sd3: a model of kind 'flux' has"),
    ],
)
def test_what_cannot_act_is_refused_before_weights_are_read(
    changes: dict[str, Any], message: str, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "load_model", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(UserError, match=f"model 'tiny': {message}"):
        FLUX.policy(folders(FLUX), **changes)


def test_every_kind_says_what_it_has(folders: Folders, wan_folders: WanFolders) -> None:
    with pytest.raises(UserError, match="'wan' has pipeline, static or unipc_0_36"):
        T2V.policy(wan_folders(T2V), schedule="flux")
    with pytest.raises(UserError, match="'stable_diffusion_3' has pipeline, static or sd3"):
        SD3.policy(folders(SD3), schedule="unipc_0_36")


def test_samples_are_judged_on_their_own_noise_levels(tiny_folder: Path, tmp_path: Path) -> None:
    """Training's noise levels leave a base sample as it is; judging's change it."""

    def drawn(name: str, **model: Any) -> bytes:
        settings = tiny_settings(tiny_folder, model=model)
        prompts = tmp_path / name / "prompts" / "evaluation.jsonl"
        write_prompts(settings, "evaluation", prompts)
        output = tmp_path / name / "samples"
        sample_base(settings, 1, prompts, output)
        paths = pd.read_parquet(output / "index.parquet").path
        return b"".join((output / path).read_bytes() for path in paths)

    plain = drawn("plain")
    judged = {"evaluation_schedule": "static", "evaluation_flow_shift": 5.0}
    assert drawn("trained", schedule="static", flow_shift=5.0) != plain
    assert drawn("judged", **judged) == drawn("both", schedule="static", flow_shift=5.0)
    apart = {"schedule": "static", "flow_shift": 5.0, "evaluation_schedule": "pipeline"}
    assert drawn("apart", **apart) == plain
