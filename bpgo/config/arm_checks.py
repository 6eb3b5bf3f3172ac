"""Rules that join an arm with its experiment: what it can train, what its trust rule can see."""

from __future__ import annotations

from typing import Any

from bpgo import registry
from bpgo.config.settings import CLIP_SHARE, Settings
from bpgo.config.variants import swept_by
from bpgo.errors import UserError

_EFFECTS = {
    "weights": "weighs groups",
    "sample_weights": "weighs each sample on its own",
    "rewards": "puts other rewards in the place of the given ones",
    "gate": "gates the regulariser",
}


def check_arms(settings: Settings, file: str) -> None:
    """Every arm can be trained with the experiment's sizes, and its trust rule sees what it reads.

    Raises:
        UserError: naming the arm's key, the value and what is allowed.
    """
    for name in settings.arms:
        if (made := swept_by(settings.sweeps, name)) is None or made[0].block is None:
            check_arm(settings, name, file)
    for experiment, name in dict.fromkeys((run.experiment, run.arm) for run in settings.runs()):
        _check_reward(settings, experiment, name, file)
        if getattr(settings.arms[name], "trust", None):
            _check_trust(settings, experiment, name, file)


def check_arm(settings: Settings, name: str, file: str) -> None:
    """The arm can be trained with these sizes; a sweep's arm has its own, and its own check.

    Raises:
        UserError: naming the arm's key, the value and what is allowed.
    """
    values: Any = settings.arms[name]
    arm = registry.load_arm_class(values.algorithm)(values)
    try:
        arm.check(settings.rollout)
    except UserError as error:
        raise UserError(f"{file}: arms.{name}.{error}") from None
    _check_optimizer_steps(settings, name, arm, file)
    _check_tolerance(settings, name, values, file)


def _check_optimizer_steps(settings: Settings, name: str, arm: Any, file: str) -> None:
    """Each optimizer step has something to train; there are never fewer than asked for."""
    rollout, training = settings.rollout, settings.training
    groups = rollout.prompts_per_iteration // max(1, settings.machine.gpus)
    size = rollout.group_size if rollout.batch_size == "auto" else rollout.batch_size
    if arm.whole_groups and size < rollout.group_size:
        raise UserError(
            f"{file}: rollout.batch_size: {size} is below rollout.group_size, which is"
            f" {rollout.group_size}: the loss of arms.{name} compares the samples of a group, so a"
            " forward pass holds whole groups"
        )
    keeps_groups = training.split == "groups" or (training.split == "samples" and arm.whole_groups)
    if training.split == "steps":
        most, what = arm.fewest_trained(rollout), f"trained steps of arms.{name}"
    elif keeps_groups:
        why = f"arms.{name}" if arm.whole_groups else "training.split"
        most, what = groups, f"groups of a process, which {why} keeps whole"
    else:
        most, what = rollout.group_size, "samples of a group (rollout.group_size)"
    if training.optimizer_steps > most:
        raise UserError(
            f"{file}: training.optimizer_steps: {training.optimizer_steps} is more than the {most}"
            f" {what}, which are shared out among the optimizer steps (training.split:"
            f" {training.split})"
        )
    # Where samples are shared out, each process has equally many of each step's.
    if keeps_groups and settings.machine.gpus > 1 and groups % training.optimizer_steps:
        raise UserError(
            f"{file}: training.optimizer_steps: {training.optimizer_steps} does not divide the"
            f" {groups} {what}: a run would depend on machine.gpus, which is"
            f" {settings.machine.gpus}"
        )


def _check_tolerance(settings: Settings, name: str, arm: Any, file: str) -> None:
    """A first ratio that is off by as much as the clip range would be clipped unseen."""
    tolerance, clip_range = settings.training.ratio_tolerance, getattr(arm, "clip_range", None)
    if tolerance and clip_range and tolerance > CLIP_SHARE * clip_range * (1 + 1e-9):
        raise UserError(
            f"{file}: training.ratio_tolerance: {tolerance:g} is more than a tenth of"
            f" arms.{name}.clip_range, which is {clip_range:g}: leave it out, and each arm's"
            " tolerance is a tenth of its own"
        )


def _check_reward(settings: Settings, experiment: str, name: str, file: str) -> None:
    """The arm can be trained with a reward of so many parts."""
    values: Any = settings.arms[name]
    reward = settings.experiments[experiment].training_reward
    parts = len(settings.rewards[reward].part_names())
    why = registry.load_arm_class(values.algorithm)(values).refuses_reward(parts)
    if why:
        raise UserError(
            f"{file}: experiments.{experiment}.training_reward: '{reward}' is"
            f" {f'a sum of {parts}' if parts > 1 else 'one reward'}, and arms.{name} cannot be"
            f" trained with it: {why}"
        )


def _check_trust(settings: Settings, experiment: str, name: str, file: str) -> None:
    arm: Any = settings.arms[name]
    rule, entry = arm.trust, settings.experiments[experiment]
    place = f"{file}: arms.{name}.trust.rule: '{rule.rule}'"
    members = settings.rewards[entry.training_reward].part_names()
    carrier = registry.load_arm_class(arm.algorithm)(arm)
    for effect in sorted(rule.effects()):
        why = carrier.refuses(effect, len(members))
        if why:
            raise UserError(
                f"{place} {_EFFECTS[effect]}, and {arm.algorithm} cannot carry that: {why}"
            )
    reads = rule.reads()
    if "members" in reads and len(members) < 2:
        raise UserError(
            f"{place} compares the members of an ensemble, and experiments.{experiment}"
            f".training_reward, '{entry.training_reward}', has {len(members) or 'only one'}: name a"
            " weighted_sum of two or more"
        )
    for member in rule.named_members():
        if member not in members:
            raise UserError(
                f"{place} names '{member}', which is no part of experiments.{experiment}"
                f".training_reward, '{entry.training_reward}': its parts are {', '.join(members)}"
            )
    if "ambiguity" in reads and not settings.prompts.knows_ambiguity:
        raise UserError(
            f"{place} reads how ambiguous each prompt is, which the prompts of kind"
            f" '{settings.prompts.kind}' do not say: a list's files.NAME.ambiguity_column would"
        )
    for reward in rule.reference_rewards():
        if reward not in entry.diagnostics:
            raise UserError(
                f"{place} reads the reward '{reward}', which experiments.{experiment}.diagnostics"
                f" does not list: {', '.join(entry.diagnostics) or 'it is empty'}"
            )
