"""Rules that join several keys or several files of a configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from bpgo.config.paper import PAPER_TASKS
from bpgo.config.settings import BASE_ARM, MAIN, RewardSettings, Settings
from bpgo.errors import UserError, suggest
from bpgo.storage.clips import check_size
from bpgo.storage.files import read_about, repository_root

# Columns of a run's table of samples: a diagnostic reward of that name would take their place.
COLUMNS = (
    *("experiment", "arm", "seed", "iteration", "prompt_id", "ambiguity"),
    *("sample", "reward", "advantage", "prior", "weight"),
)


# Of the embedded worlds: the only samples that their rewards read (frames, pixels along a side).
EMBEDDED = {
    "scenes_preference": (1, 24),
    "scenes_oracle": (1, 24),
    "scenes_video_preference": (5, 32),
    "scenes_video_oracle": (5, 32),
}
EMBEDDED_MODELS = "bpgo/scenes/weights/"
MOST_CAPTIONS = 100_000  # of their grammars


def check_embedded(settings: Settings, file: str) -> None:
    """Rewards of an embedded world see samples of its size, and its grammar has an end."""
    model = settings.model
    ours = model.content is not None or model.path.startswith(EMBEDDED_MODELS)
    for name, reward in settings.rewards.items() if ours else ():
        frames, pixels = EMBEDDED.get(reward.kind, (model.frames, model.resolution))
        for key, wanted, found in (
            ("frames", frames, model.frames),
            ("resolution", pixels, model.resolution),
            ("width", pixels if reward.kind in EMBEDDED else model.columns, model.columns),
        ):
            if wanted != found:
                raise UserError(
                    f"{file}: model: {key}: {found} is not allowed: the reward '{name}' of the"
                    f" embedded world reads {wanted} alone"
                )
    for split in ("train", "evaluation"):
        count = getattr(settings.prompts, split)
        if settings.prompts.kind.startswith("scenes") and count > MOST_CAPTIONS:
            raise UserError(
                f"{file}: prompts: {split}: {count} is not allowed: the embedded world has"
                f" {MOST_CAPTIONS} captions at most"
            )


def check_sizes(settings: Settings, file: str) -> None:
    """Numbers that bound each other, and a main metric that scores something."""
    rollout, training = settings.rollout, settings.training
    for small, large in (
        ("evaluation.curve_prompts", "evaluation.prompts"),
        ("evaluation.prompts", "prompts.evaluation"),
        ("evaluation.divergence_prompts", "evaluation.prompts"),
        ("evaluation.diversity_prompts", "evaluation.prompts"),
        ("calibration.prompts", "prompts.train"),
        ("rollout.prompts_per_iteration", "prompts.train"),
    ):
        low, high = (_value_at(settings, key) for key in (small, large))
        if low > high:
            raise UserError(f"{file}: {small}: {low} is more than {large}, which is {high}")
    if rollout.deterministic_tail >= rollout.steps:
        raise UserError(
            f"{file}: rollout.deterministic_tail: {rollout.deterministic_tail} leaves no step with"
            f" noise; it must be below rollout.steps, which is {rollout.steps}"
        )
    if rollout.prompts_per_iteration % max(1, settings.machine.gpus):
        raise UserError(
            f"{file}: machine.gpus: {settings.machine.gpus} GPUs cannot share evenly in"
            f" rollout.prompts_per_iteration, which is {rollout.prompts_per_iteration} groups"
        )
    if training.snapshot_every > training.iterations:
        raise UserError(
            f"{file}: training.snapshot_every: {training.snapshot_every} is more than"
            f" training.iterations, which is {training.iterations}"
        )
    _check_final_stages(settings, file)
    names = {name for entry in settings.experiments for name in settings.rewards_of(entry)}
    if settings.analysis.main_metric not in names:
        raise UserError(
            f"{file}: analysis.main_metric: '{settings.analysis.main_metric}' scores no experiment."
            f" Known: {', '.join(sorted(names))}"
        )


def _check_final_stages(settings: Settings, file: str) -> None:
    """Runs have so many policies, and all of them are scored on all evaluation prompts."""
    wanted, judged = settings.analysis.final_stages, settings.evaluation
    key = f"{file}: analysis.final_stages: {wanted}"
    stages = len(settings.training.stages())
    if wanted > stages:
        raise UserError(
            f"{key} is more than a run has: {stages} (training.iterations by"
            " training.snapshot_every, rounded up)"
        )
    if wanted > 1 and judged.curve_prompts < judged.prompts:
        raise UserError(
            f"{key} is for policies that are scored on all evaluation prompts, but snapshots are"
            f" scored on evaluation.curve_prompts, {judged.curve_prompts} of {judged.prompts}:"
            " leave evaluation.curve_prompts out, or set analysis.final_stages to 1"
        )


def check_measured(settings: Settings, file: str) -> None:
    """What is measured beside scores has what it needs."""
    judged, features, made = settings.evaluation, settings.features, settings.model.makes
    if judged.diversity_prompts and features is None:
        raise UserError(
            f"{file}: evaluation.diversity_prompts: {judged.diversity_prompts} is for samples that"
            " are compared by features: name some (features: NAME, a file in config/features), or"
            " set it to 0"
        )
    if features is not None and judged.prompts * judged.samples_per_prompt < 2:
        raise UserError(
            f"{file}: evaluation.prompts: {judged.prompts} with evaluation.samples_per_prompt 1 is"
            " one sample, whose distance (features) cannot be estimated: two are needed"
        )
    if features is not None and made not in features.media:
        raise UserError(
            f"{file}: features: '{features.title}' read {' or '.join(features.media)}s, but the"
            f" model '{settings.model.title}' makes {made}s"
        )
    for name, arm in settings.arms.items():
        own = getattr(arm, "features", None)
        if own is not None and made not in own.media:
            raise UserError(
                f"{file}: arms.{name}.features: '{own.title}' read {' or '.join(own.media)}s, but"
                f" the model '{settings.model.title}' makes {made}s"
            )
    for name in settings.experiments if judged.divergence_prompts else ():
        if settings.sampler_of(name).kernel == "ode":
            raise UserError(
                f"{file}: evaluation.divergence_prompts: {judged.divergence_prompts} is for a"
                f" sampler with noise, and that of experiments.{name}, its reference arm's, has"
                " none: set it to 0, or take another analysis.reference_arm"
            )


def check_analysis(settings: Settings, arms: Iterable[str], file: str) -> None:
    """Primary contrasts are of arms and metrics that exist; a second run does too.

    `arms` are those that have a file. One that its experiment does not run is no mistake: others
    may be left out for a while, and tables say that the contrast was not run.
    """
    known = list(dict.fromkeys([*settings.arms, *settings.policies, *sorted(arms)]))
    for name, primary in settings.primary_contrasts().items():
        key = f"{file}: experiments.{name}.primary"
        for word, arm in (("arm", primary.arm), ("reference", primary.reference)):
            if arm not in (BASE_ARM, *known):
                _known(f"{key}.{word}", "an arm", arm, [BASE_ARM, *known])
        if primary.arm == primary.reference:
            raise UserError(f"{key}.reference: '{primary.arm}' is the arm itself; name another")
        rewards = settings.rewards_of(name)
        if primary.metric not in rewards:
            _known(f"{key}.metric", "a reward of the experiment", primary.metric, rewards)
    reference = settings.analysis.reference_arm
    if reference not in known:
        _known(f"{file}: analysis.reference_arm", "an arm", reference, known)
    for arm in settings.analysis.own_variance:
        if arm not in known:
            _known(f"{file}: analysis.own_variance", "an arm", arm, known)
    second = settings.analysis.second_run
    if second is not None and not (Path(second) / "collected").is_dir():
        raise UserError(
            f"{file}: analysis.second_run: '{second}' is no folder of results, such as"
            f" results/other: there is no {Path(second) / 'collected'}"
        )


def check_learning_rates(settings: Settings, arms: Iterable[str], file: str) -> None:
    """Learning rates of single arms are of arms that exist; `arms` are those that have a file."""
    known = list(dict.fromkeys([*settings.arms, *sorted(arms)]))
    for arm in settings.training.learning_rates:
        if arm not in known:
            _known(f"{file}: training.learning_rates", "an arm", arm, known)


def _known(key: str, what: str, name: str, known: list[str]) -> NoReturn:
    raise UserError(
        f"{key}: '{name}' is not {what}.{suggest(name, known)} Known: {', '.join(known)}"
    )


def check_paper(settings: Settings, file: str) -> None:
    """The paper's numbers are of the model's task, beside rewards that score the experiment."""
    table, task = PAPER_TASKS[settings.model.task]
    for name, experiment in settings.experiments.items():
        paper = experiment.paper
        if paper and (paper.table, paper.task) != (table, task):
            raise UserError(
                f"{file}: experiments.{name}.paper: {paper.table} and '{paper.task}' are not what"
                f" the paper reports of the model's task, {settings.model.task}: that is {table},"
                f" '{task}'"
            )
        for reward in experiment.paper.metrics if experiment.paper else ():
            known = settings.rewards_of(name)
            if reward not in known:
                raise UserError(
                    f"{file}: experiments.{name}.paper.metrics: '{reward}' scores nothing here."
                    f"{suggest(reward, known)} Known: {', '.join(known)}"
                )


def check_task(settings: Settings, file: str) -> None:
    """Rewards, priors and guidance that fit what the model makes."""
    model = settings.model
    if model.makes == "image" and model.frames != 1:
        raise UserError(f"{file}: model: frames: {model.frames} frames are for the tasks t2v, i2v")
    if model.makes == "video":
        try:
            check_size(settings.evaluation.clip_quality, model.resolution, model.columns)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
    if settings.prompts.has_first_frames != (model.task == "i2v"):
        have = "have first frames" if settings.prompts.has_first_frames else "have no first frames"
        raise UserError(
            f"{file}: prompts: they {have}, but the model '{model.title}' has the task"
            f" {model.task}; image to video (i2v) takes a first frame with each prompt, other tasks"
            " take none"
        )
    settings.prompts.check_frames((model.columns, model.resolution))
    for experiment in settings.experiments:
        for name in settings.models_of(settings.rewards_of(experiment)):
            media = settings.rewards[name].media
            if media != model.makes:
                raise UserError(
                    f"{file}: experiments.{experiment}: the reward '{name}' scores {media}s, but"
                    f" the model '{model.title}' makes {model.makes}s (task {model.task})."
                    f"{_OVER_FRAMES if media == 'image' else ''}"
                )
            rate = getattr(settings.rewards[name], "clip_fps", model.frames_per_second)
            if rate != model.frames_per_second:
                raise UserError(
                    f"{file}: experiments.{experiment}: the reward '{name}' takes clips of {rate:g}"
                    f" frames a second (clip_fps), but the model '{model.title}' makes"
                    f" {model.frames_per_second:g}: set overrides.rewards.{name}.clip_fps"
                )
    for name, arm in settings.arms.items():
        for key, rule in _rules(arm, f"arms.{name}"):
            if getattr(rule, "prior", None) == "first_frame" and model.task != "i2v":
                raise UserError(
                    f"{file}: {key}.prior: 'first_frame' is for image to video; the model"
                    f" '{model.title}' has the task {model.task}"
                )
    for key in ("rollout", "evaluation"):
        scale = getattr(settings, key).guidance_scale
        if isinstance(scale, list) and model.kind != "wan":
            raise UserError(
                f"{file}: {key}.guidance_scale: {scale} is for two experts; the model"
                f" '{model.title}' takes one number"
            )


def check_guidance(settings: Settings, file: str) -> None:
    """No guidance for a FLUX that was trained without it, where its files are here to say so."""
    model = settings.model
    path = repository_root() / model.path / "transformer" / "config.json"
    about = read_about(path)
    if model.kind != "flux" or not about or about.get("guidance_embeds"):
        return
    for key in ("rollout", "evaluation"):
        scale = getattr(settings, key).guidance_scale
        if scale not in (None, 1.0):
            raise UserError(
                f"{file}: {key}.guidance_scale: {scale} cannot act: the model '{model.title}' has"
                f" no guidance (guidance_embeds in {path}); set it to 1.0"
            )


def check_kernels(settings: Settings, file: str) -> None:
    """No kernel meets a first noise level that it cannot take.

    The `flow` kernel has a pole at 1. It steps over it where a schedule starts there, not where it
    starts a little below.
    """
    if settings.model.schedule != "unipc_0_36":
        return
    for name, arm in settings.arms.items():
        if getattr(arm, "kernel", None) == "flow":
            raise UserError(
                f"{file}: arms.{name}.kernel: flow divides by 1 minus the noise level, and the"
                " model's schedule, unipc_0_36, starts just below 1: take another kernel, or"
                " another model.schedule"
            )


def _rules(arm: Any, key: str) -> Iterator[tuple[str, Any]]:
    """An arm's trust rule and those inside it, with the keys that lead there."""
    rule, key = getattr(arm, "trust", None), f"{key}.trust"
    while rule is not None:
        yield key, rule
        rule, key = getattr(rule, "of", None), f"{key}.of"


_OVER_FRAMES = " A reward of kind frame_mean scores a clip by an image reward."


def check_part(name: str, part: RewardSettings, whole: RewardSettings, file: str) -> None:
    """The reward `name` can be a part of the sum `whole`, which `file` holds."""
    if part.part_names():
        raise UserError(f"{file}: parts: '{name}' is a sum itself; name its parts instead")
    if part.environment != whole.environment:
        raise UserError(
            f"{file}: parts: '{name}' runs in the environment '{part.environment}', the sum in"
            f" '{whole.environment}'; they must be the same"
        )


def check_inner(name: str, inner: RewardSettings, outer: RewardSettings, file: str) -> None:
    """The reward `name` can score the frames for `outer`, which `file` holds."""
    if inner.part_names() or inner.media != "image":
        kind = "a sum" if inner.part_names() else "a reward of videos"
        raise UserError(f"{file}: reward: '{name}' is {kind}; name one that scores images")
    if inner.environment != outer.environment:
        raise UserError(
            f"{file}: reward: '{name}' runs in the environment '{inner.environment}': write"
            f" environment: {inner.environment} here too"
        )


def check_in_training(name: str, reward: RewardSettings, key: str, place: str) -> None:
    """The reward `name` can drive training (`key` training_reward) or be logged (diagnostics)."""
    if reward.environment != MAIN:
        raise UserError(
            f"{place}: '{name}' runs in the environment '{reward.environment}'; training runs in"
            f" '{MAIN}', so it can only be a judge"
        )
    column = next((each for each in [name, *reward.part_names()] if each in COLUMNS), None)
    if column is not None:
        raise UserError(
            f"{place}: '{column}' is the name of a column of every run's table; give the reward's"
            " file another name"
        )
    if key == "diagnostics" and reward.part_names():
        raise UserError(f"{place}: '{name}' is a sum; name its parts instead")


def _value_at(settings: Settings, key: str) -> int:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return int(value)
