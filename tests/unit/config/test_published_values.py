"""Every value that a comment attributes to published code, against that code.

Rows were typed from the published files, at the commits named, not from our YAML files. Values that
only a paper has are in no row: the paper's text was not at hand.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from published_arms import ROWS

from bpgo.config import resolve as config
from bpgo.config.settings import RolloutSettings
from bpgo.registry import load_arm_class
from bpgo.storage.files import repository_root
from bpgo.tools.algorithms import stated

CONFIG = repository_root() / "config"
# A model is looked at through the experiment that uses it.
EXPERIMENT_OF = {
    "models/flux1_dev": "flux_t2i",
    "models/sd35_medium": "sd35_t2i",
    "models/wan21_t2v_1_3b": "wan21_t2v",
    "models/wan22_i2v_a14b": "wan22_i2v",
}
MODEL_OF = {experiment: model for model, experiment in EXPERIMENT_OF.items()}
ALL = [(file, *row) for file, rows in ROWS.items() for row in rows]
# Files of which every value must have a row or be our choice.
COMPLETE = [file for file in ROWS if file.startswith("arms/")] + [
    "trust/bpgo_released",
    "trust/gardo",
]
NAMES = {"base", "algorithm", "title", "source", "trust", "rule"}
OURS = re.compile(r"\b[Oo]ur (choice|guard|control|rule|variant)\b")


@cache
def resolved(file: str) -> dict[str, Any]:
    """All values of `config/{file}.yaml`, what it builds on filled in."""
    folder, _, name = file.rpartition("/")
    if folder == "arms":
        found = config.load_arm(name, CONFIG)
    elif folder == "trust":
        found = config.load_trust(name, CONFIG)
    elif folder == "models":
        return resolved(EXPERIMENT_OF[file])["model"]
    else:
        found = config.load(CONFIG / f"{file}.yaml")
    return found.model_dump(mode="json", by_alias=True)


def value_at(file: str, dotted: str) -> Any:
    """One resolved value."""
    found: Any = resolved(file)
    for part in dotted.split("."):
        found = found[part]
    return found


@pytest.mark.parametrize(("file", "key", "value", "source"), ALL)
def test_a_value_is_the_published_one(file: str, key: str, value: Any, source: str) -> None:
    assert value_at(file, key) == value, f"config/{file}.yaml, {key}: {source} has {value}"


@pytest.mark.parametrize("file", ROWS)
def test_our_choices_have_no_row(file: str) -> None:
    ours = {key for key, (_, text) in stated(CONFIG / f"{file}.yaml").items() if OURS.search(text)}
    model = MODEL_OF.get(file, "").removeprefix("models/")
    for key, _, source in ROWS[file]:
        places = {
            key,
            f"overrides.{key}",
            key.replace("model.", f"overrides.models.{model}.", 1),
        }
        assert not places & ours, f"{key} is called our choice, but {source} has it"


@pytest.mark.parametrize("file", COMPLETE)
def test_each_value_is_published_or_our_choice(file: str) -> None:
    published = {key for key, _, _ in ROWS[file]}
    for key, (value, comment) in stated(CONFIG / f"{file}.yaml").items():
        left_out = value is None or key in NAMES
        assert left_out or key in published or OURS.search(comment), f"{file}.yaml: {key}"


CARRIERS = sorted(path.stem for path in (CONFIG / "arms").glob("bpgo*.yaml"))


@pytest.mark.parametrize("name", CARRIERS)
def test_bpgo_is_carried_by_the_baseline(name: str) -> None:
    """TeleBoost run.sh: method bgpo changes `bgpo.enable` and `use_rerange`, nothing else."""
    arm, baseline = resolved(f"arms/{name}"), resolved("arms/grpo")
    apart = {"title", "source", "trust"}
    assert {k: v for k, v in arm.items() if k not in apart} == {
        k: v for k, v in baseline.items() if k not in apart
    }
    assert baseline["trust"] is None
    assert arm["trust"] == resolved(f"trust/{name}")


def trained_steps(file: str, name: str) -> int:
    """How many steps of a sample an arm trains in an experiment."""
    values = resolved(file)
    kind = load_arm_class(values["arms"][name]["algorithm"])
    arm = kind(kind.Settings.model_validate(values["arms"][name]))
    return arm.trained_count(RolloutSettings.model_validate(values["rollout"]))


def test_flux_iteration_is_dance_grpos() -> None:
    """XueZeyue/DanceGRPO@15cc71d5 finetune_flux_grpo_8gpus_lora.sh, train_grpo_flux_lora.py.

    `repeat_interleave` orders a GPU's samples by prompt, and the optimizer steps after every
    `accumulation` of them: whole groups. The last of the steps is never stored for training.
    """
    gpus, prompts_a_gpu, generations, accumulation = 8, 2, 12, 12
    sampling_steps, untrained, timestep_fraction = 12, 1, 0.6
    max_train_steps, checkpointing_steps = 301, 60
    samples_a_gpu = prompts_a_gpu * generations
    rollout, training = resolved("flux_t2i")["rollout"], resolved("flux_t2i")["training"]
    assert rollout["prompts_per_iteration"] == gpus * prompts_a_gpu
    assert rollout["group_size"] == generations
    assert training["optimizer_steps"] == samples_a_gpu // accumulation
    assert (training["split"] == "groups") == (accumulation % generations == 0)
    assert trained_steps("flux_t2i", "grpo") == int(
        (sampling_steps - untrained) * timestep_fraction
    )
    last_saved = max_train_steps // checkpointing_steps * checkpointing_steps
    assert training["iterations"] == last_saved


def test_sd35_iteration_is_flow_grpos() -> None:
    """yifan123/flow_grpo@9745241c config/grpo.py pickscore_sd3_4gpu, scripts/train_sd3.py.

    A GPU's samples are permuted, then cut into its batches: an optimizer step has some of a group.
    """
    gpus, batch, group, groups = 4, 8, 16, 16
    batches = int(groups / (gpus * batch / group))
    accumulation = batches // 2  # micro-batches, each with all trained steps
    num_steps, timestep_fraction = 10, 0.99
    rollout, training = resolved("sd35_t2i")["rollout"], resolved("sd35_t2i")["training"]
    assert rollout["group_size"] == group
    assert rollout["prompts_per_iteration"] * group == gpus * batch * batches
    assert training["optimizer_steps"] == batches // accumulation
    assert training["split"] == "samples"
    for name in ("grpo", "flow_grpo", "bpgo"):
        assert trained_steps("sd35_t2i", name) == int(num_steps * timestep_fraction)


@pytest.mark.parametrize("file", ["wan21_t2v", "wan22_i2v"])
def test_wan_iteration_is_teleboosts(file: str) -> None:
    """Tele-AI/TeleBoost@d4279ac1 recipes/wan_grpo_fsdp/run.sh and actor.py `_denoise_setup`.

    verl (volcengine/verl@004c8880 fsdp_workers.py) turns `ppo_mini_batch_size`, in prompts, into
    samples a GPU; the optimizer steps after so many of them.
    """
    gpus, prompts, mini_batch, micro_batch = 8, 8, 8, 1
    sampling_steps, untrained, timestep_fraction = 16, 1, 0.6
    rollout, training = resolved(file)["rollout"], resolved(file)["training"]
    samples_a_gpu = prompts * rollout["group_size"] // gpus
    accumulation = mini_batch * rollout["group_size"] // gpus // micro_batch
    assert training["optimizer_steps"] == samples_a_gpu // accumulation
    assert trained_steps(file, "grpo") == int((sampling_steps - untrained) * timestep_fraction)


def test_branch_grpos_stop_depth_is_the_edge_before_the_last_split() -> None:
    """Fredreic1849/BranchGRPO@19fbb9fc launcher: splits "0,3,6,9", DEPTH_PRUNING_STOP_DEPTH=9.

    A depth is that of an edge's child, the step plus one.
    """
    last_split, stop_depth = 9, 9
    before = last_split - (stop_depth - 1)
    arm = resolved("arms/branch_grpo")
    assert arm["pruning"]["slide_to"] == arm["tree"]["split_steps"][-1] - before
