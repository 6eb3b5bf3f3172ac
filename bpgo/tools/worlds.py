"""`python -m bpgo worlds`: what each world of a set of weights is like, as one small table.

Groups of the base policy are drawn as training draws them, with the calibration that BPGO's priors
start from, by the steps of the workflow; every prompt has one group. Nothing is trained.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bpgo.analysis.statistics.bootstrap import Floats
from bpgo.analysis.statistics.worlds import Groups, world_statistics
from bpgo.analysis.tables.format import save_table
from bpgo.analysis.tables.worlds import worlds_table
from bpgo.config.jobs import draw_digest
from bpgo.config.offline import groups_digest, reference_arms, scored_rewards
from bpgo.config.resolve import default_configfile, load_trust, read_yaml, resolve
from bpgo.config.settings import Settings
from bpgo.config.world_weights import SHIPPED
from bpgo.errors import UserError
from bpgo.records import Calibration
from bpgo.run.progress import Progress
from bpgo.scenes.weights import reward_name
from bpgo.scenes.worlds import POOLS, WORLDS
from bpgo.steps import loading
from bpgo.steps.calibrate import summary
from bpgo.steps.draw import draw
from bpgo.steps.draw_scores import score_draws, score_table
from bpgo.steps.draws import open_draws
from bpgo.steps.group_table import Batch, read_groups
from bpgo.steps.groups import groups as draw_groups
from bpgo.steps.prompts import read_prompts, write_prompts
from bpgo.steps.seen_groups import seen_groups
from bpgo.storage import hub
from bpgo.storage.digests import read_digests
from bpgo.trust.measures import goodman_kruskal
from bpgo.trust.prior import MovingAverage, SftMean

FEWEST = 32  # groups; specified and open ones are parts of them
SEED = 1  # of the noise and the order of prompts, as of a training run
TRUTH = "oracle"
COUNTED = "oracle_soft"  # with few levels: statements met or not
HARD = "hard"  # the clear world's rewards on captions of which the specified ones are hard


def worlds(weights: str | None, count: int, output: Path) -> None:
    """Write `output`/worlds.{csv,md,tex}: a row for each measure, a column for each world.

    Args:
        weights: a folder of weights as `world_weights` names it; None: the shipped one.
        count: groups a world; a multiple of the configuration's prompts an iteration.
        output: a folder.

    Raises:
        UserError: a count that is too small or no multiple; weights that cannot be used.
    """
    torch.set_num_threads(1)
    names = _worlds_of(weights)
    frames, size = [], 0
    with tempfile.TemporaryDirectory() as place:
        for prompts, chosen in (("scenes", names), ("scenes_hard", [HARD])):
            if HARD in chosen and "clear" not in names:
                continue
            settings = _settings(weights, prompts, chosen, count)
            size = settings.rollout.group_size
            for world, found in _measured(settings, Path(place, prompts)).items():
                frames.append(world_statistics(found).assign(world=world))
    frame = pd.concat(frames, ignore_index=True)
    save_table(worlds_table(frame[["world", *frame.columns[:-1]]], count, size), Path(output))


def _worlds_of(weights: str | None) -> list[str]:
    """The worlds whose three pools the folder has."""
    folder = hub.local_path(weights or SHIPPED)
    if folder is None:
        raise UserError(f"--weights: there is no folder '{weights}'")
    listed = read_digests(folder)
    found = [name for name in WORLDS if all(reward_name(name, pool) in listed for pool in POOLS)]
    if not found:
        raise UserError(f"--weights: '{weights}' has all three pools of no world")
    return [str(name) for name in found]


def _settings(weights: str | None, prompts: str, names: list[str], count: int) -> Settings:
    """The default's model and sampler; an experiment for each world, a prompt for each group."""
    file = default_configfile()
    values: dict[str, Any] = read_yaml(file)
    size = values["rollout"]["prompts_per_iteration"]
    if count < FEWEST or count % size:
        raise UserError(
            f"--groups: {count} is not allowed: it must be a multiple of {size} and at least"
            f" {FEWEST}"
        )
    arm = values["analysis"]["reference_arm"]
    for key in ("smoke", "sweeps", "features"):
        values.pop(key, None)
    values["analysis"] = {"main_metric": TRUTH, "reference_arm": arm}
    values |= {"prompts": prompts, "world_weights": weights}
    values["overrides"] |= {"prompts": {prompts: {"train": count}}}  # beside the sampler's
    values["evaluation"] |= {"prompts": 16, "divergence_prompts": 0, "diversity_prompts": 0}
    values["calibration"] |= {"prompts": count}
    values["trust_groups"] = {"seeds": [SEED], "iterations": count // size}
    values["experiments"] = {
        name: {
            "title": name,
            "training_reward": _reward(name, "a"),
            "judges": [_reward(name, "b"), _reward(name, "c"), TRUTH],
            "diagnostics": [TRUTH, COUNTED],
            "arms": [arm],
            "seeds": [SEED],
        }
        for name in names
    }
    return resolve(values, file.parent, "--weights", whole=False)


def _reward(world: str, pool: str) -> str:
    return f"scenes_{'clear' if world == HARD else world}_{pool}"


def _measured(settings: Settings, folder: Path) -> dict[str, Groups]:
    """The groups of each world of the settings; what the steps write lies in `folder`."""
    [arm], [sampler] = reference_arms(settings), settings.samplers()
    prompts, drawn = folder / "prompts" / "train.jsonl", folder / "groups.parquet"
    write_prompts(settings, "train", prompts)
    draw_groups(settings, arm, SEED, prompts, drawn)
    batches = read_groups(drawn, groups_digest(settings, arm), scored_rewards(settings, arm))
    draws = folder / "draws" / "draws.json"
    draw(settings, sampler.name, prompts, draws)
    anchors = _anchors(settings, prompts, draws, draw_digest(settings, sampler))
    found = {}
    for name in settings.experiments:
        found[name] = _groups(settings, name, batches, anchors[_reward(name, "a")])
    return found


def _anchors(settings: Settings, prompts: Path, draws: Path, digest: str) -> dict[str, Calibration]:
    """What `calibrate` would know of each training reward; the samples are decoded once for all."""
    wanted = settings.calibration
    batch = read_prompts(prompts, wanted.prompts)
    samples = open_draws(draws, digest, batch, wanted.samples_per_prompt)
    device = loading.prepare_process(settings, 1)
    policy = loading.load_policy(settings, device, wanted.seed)
    names = list({entry.training_reward: None for entry in settings.experiments.values()})
    rewards = loading.load_rewards(settings, names, device)
    with Progress("worlds: calibrate", wanted.prompts) as progress:
        table = score_table(samples, names, score_draws(policy, samples, rewards, progress))
    return {name: summary(table[table.reward == name]) for name in names}


def _groups(settings: Settings, name: str, batches: list[Batch], anchor: Calibration) -> Groups:
    """One world's groups, with the priors that BPGO would have met them with."""
    rule: Any = load_trust("bpgo", default_configfile().parent)
    moving, own = MovingAverage(rule.momentum), SftMean()
    anchors: dict[str, list[Any]] = {"moving_average": [], "sft_mean": []}
    for seen in seen_groups(settings, name, batches, anchor, batches).training:
        anchors["moving_average"].append(moving.get(seen))
        anchors["sft_mean"].append(own.get(seen))
        moving.update(seen)
    pools = {pool: _table(batches, _reward(name, pool)) for pool in POOLS}
    oracle, counted = _table(batches, TRUTH), _table(batches, COUNTED)
    gamma, counted_gamma = (
        goodman_kruskal(torch.from_numpy(pools["a"]), torch.from_numpy(truth)).numpy()
        for truth in (oracle, counted)
    )
    return Groups(
        prompts=[prompt for batch in batches for prompt in batch.prompt_ids],
        ambiguity=np.concatenate([batch.ambiguity.double().numpy() for batch in batches]),
        pools={str(pool): table for pool, table in pools.items()},
        oracle=oracle,
        counted=counted,
        gamma=gamma,
        counted_gamma=counted_gamma,
        anchors={form: torch.cat(parts).numpy() for form, parts in anchors.items()},
    )


def _table(batches: list[Batch], reward: str) -> Floats:
    """Scores of all groups `[N, G]`."""
    return np.concatenate([batch.scores[reward].double().numpy() for batch in batches])
