"""What a configuration does: jobs, forward passes, images, texts. Counted, not estimated.

One forward pass is one sample through the transformer once, whatever the batch size; guidance
(CFG) makes two of it. Groups whose advantages are all zero are left out of an update, so training
may do less than is counted here, never more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bpgo.config.given import GIVEN
from bpgo.config.jobs import calibrated_rewards
from bpgo.config.runs import Run
from bpgo.config.settings import BASE_ARM, MAIN, Settings
from bpgo.core.arm import Arm
from bpgo.records import Passes
from bpgo.registry import load_arm_class

# Jobs that happen once (workflow/rules/analysis.smk and evaluation.smk).
ONCE = ("collect", "statistics", "tables", "plots", "grids", "report")
TRUE_GUIDANCE = (
    "stable_diffusion_3",
    "wan",
)  # kinds of model whose guidance is a second forward pass


@dataclass(frozen=True)
class Jobs:
    """`count` jobs of one rule that all do the same."""

    rule: str
    name: str  # such as `ambiguous/grpo`
    count: int
    forwards: int = 0  # without gradient: sampling, other policies, half of some guidance
    updates: int = 0  # forward and backward
    decoded: int = 0  # images
    rewarded: dict[str, int] = field(default_factory=dict)  # images by reward
    files: int = 0  # images written
    policies: int = 0  # trained policies written

    @property
    def reward_calls(self) -> int:
        """Images scored, once for each reward that scores them."""
        return sum(self.rewarded.values())


@dataclass(frozen=True)
class Work:
    """All jobs, and the texts that are encoded once for all of them."""

    groups: list[Jobs]
    texts: int
    target: str  # the rule that asks for everything

    @property
    def jobs(self) -> dict[str, int]:
        """Jobs by rule, as `snakemake --dry-run` counts them."""
        found: Counter[str] = Counter()
        for group in self.groups:
            found[group.rule] += group.count
        return dict(found) | dict.fromkeys((*ONCE, self.target), 1)

    def total(self, quantity: str, rule: str | None = None) -> int:
        """A quantity of `Jobs` over all jobs, or over those of one rule."""
        return sum(
            group.count * getattr(group, quantity)
            for group in self.groups
            if rule in (None, group.rule)
        )


def work_of(settings: Settings) -> Work:
    """Count everything that `snakemake` would do from nothing."""
    groups = [Jobs("prompts", "prompts", 2)]
    groups += [_draw(settings, sampler.name) for sampler in settings.samplers()]
    groups += [_calibrate(settings, name) for name in settings.experiments]
    # It completes scores that the calibration has.
    groups += [Jobs("judge", name, 1) for name in settings.experiments]
    groups += [_sample_base(settings), *_harm_base(settings), *_runs(settings)]
    texts = settings.prompts.train + settings.evaluation.prompts
    unguided = 1 if passes(settings, settings.rollout.guidance_scale) > 1 else 0
    target = "all" if settings.scale == "full" else settings.scale
    return Work(groups, texts + unguided, target)


def passes(settings: Settings, guidance_scale: float | list[float]) -> int:
    """Forward passes for one velocity: 2 where guidance is one of its own (CFG)."""
    return 2 if settings.model.kind in TRUE_GUIDANCE and _strongest(guidance_scale) > 1 else 1


def gradient_passes(settings: Settings) -> int:
    """Of an update's forward passes for one velocity, those that have a backward pass."""
    both = settings.model.guidance_gradient == "both"
    return passes(settings, settings.rollout.guidance_scale) if both else 1


def _strongest(guidance: float | list[float]) -> float:
    """The larger of two experts' scales, or the one there is."""
    return max(guidance) if isinstance(guidance, list) else guidance


def arms_of(settings: Settings) -> list[Arm]:
    """Every arm of a configuration."""
    chosen: list[Any] = list(settings.arms.values())
    return [load_arm_class(arm.algorithm)(arm) for arm in chosen]


def arm_passes(settings: Settings, arm: str) -> Passes:
    """The forward passes of an arm, for one sample in one iteration, as the arm says."""
    chosen: Any = settings.arms[arm]
    found: Passes = load_arm_class(chosen.algorithm)(chosen).passes(settings.rollout)
    return found


def arm_work(settings: Settings, arm: str) -> tuple[int, int]:
    """One sample's forward passes in an iteration of an arm, those that guidance adds included.

    First those without a backward pass, then those with one.
    """
    return with_guidance(settings, arm_passes(settings, arm))


def with_guidance(settings: Settings, each: Passes) -> tuple[int, int]:
    """Forward passes without and with a backward pass, those that guidance adds included."""
    copies, with_gradient = (
        passes(settings, settings.rollout.guidance_scale),
        gradient_passes(settings),
    )
    without = copies * (each.rollout + each.others) + (copies - with_gradient) * each.trained
    return without, with_gradient * each.trained


def snapshots(settings: Settings) -> int:
    """Policies kept before the last one."""
    return len(settings.training.stages()) - 1


def drawn(settings: Settings) -> int:
    """Images of one calibration."""
    return settings.calibration.prompts * settings.calibration.samples_per_prompt


def _draw(settings: Settings, sampler: str) -> Jobs:
    """Once for all experiments with the same sampler."""
    each = settings.rollout.steps * passes(settings, settings.rollout.guidance_scale)
    return Jobs("draw", sampler, 1, forwards=drawn(settings) * each)


def _calibrate(settings: Settings, experiment: str) -> Jobs:
    images = drawn(settings)
    judges = settings.in_environment(experiment, MAIN)
    models = settings.models_of([*judges, *calibrated_rewards(settings, experiment)])
    return Jobs("calibrate", experiment, 1, decoded=images, rewarded=dict.fromkeys(models, images))


def _sample_base(settings: Settings) -> Jobs:
    """Once a seed, for all experiments."""
    seeds = len({run.seed for run in settings.base_runs()})
    return _sample(settings, "sample_base", BASE_ARM, seeds, _evaluated(settings, False))


def _sample(settings: Settings, rule: str, name: str, count: int, images: int) -> Jobs:
    """Jobs that sample so many images each."""
    each = settings.evaluation.steps * passes(settings, settings.judging_guidance)
    return Jobs(rule, name, count, forwards=images * each, decoded=images, files=images)


def _sample_given(settings: Settings) -> list[Jobs]:
    """Policies that were trained elsewhere: once a seed, for all experiments."""
    seeds, images = len({run.seed for run in settings.base_runs()}), _evaluated(settings, False)
    return [
        _sample(settings, "sample", f"{GIVEN}/{name}", seeds, images) for name in settings.policies
    ]


def _harm_base(settings: Settings) -> list[Jobs]:
    """The base policy's diversity, once a seed, where it is measured."""
    seeds = len({run.seed for run in settings.base_runs()})
    drawn, forwards = _diversity(settings)
    return [Jobs("harm_base", BASE_ARM, seeds, forwards=forwards, decoded=drawn)] if drawn else []


def _harm(settings: Settings, name: str, seeds: int, kept: int) -> Jobs:
    """Both policies' passes at each stochastic step of a path, for each `kept` one; diversity."""
    drawn, forwards = _diversity(settings)
    rollout = settings.rollout
    sampler = settings.sampler_of(name.split("/")[0])
    each = 2 * sampler.noisy_steps(rollout.steps, rollout.deterministic_tail)
    each *= passes(settings, rollout.guidance_scale)
    paths = settings.evaluation.divergence_prompts * kept
    return Jobs("harm", name, seeds, forwards=forwards + paths * each, decoded=drawn)


def _diversity(settings: Settings) -> tuple[int, int]:
    """Samples of one policy, and their forward passes."""
    wanted = settings.evaluation
    drawn = wanted.diversity_prompts * wanted.diversity_samples if settings.draws_diversity else 0
    return drawn, drawn * wanted.steps * passes(settings, settings.judging_guidance)


def _runs(settings: Settings) -> list[Jobs]:
    """Training, sampling and scoring; runs that differ only in their seed are counted together."""
    groups = _sample_given(settings)
    untrained = settings.base_runs() + settings.given_runs()
    for (experiment, arm), seeds in _by_arm(untrained + settings.runs()).items():
        given = arm in settings.policies
        name, trained = f"{experiment}/{arm}", arm != BASE_ARM and not given
        images = _evaluated(settings, trained)
        if trained:
            groups.append(_train(settings, experiment, arm, name, seeds))
            groups.append(_sample(settings, "sample", name, seeds, images))
        if (trained or given) and settings.measures_harm:
            kept = 1 if given else len(settings.training.stages())
            groups.append(_harm(settings, name, seeds, kept))
        for environment in settings.environments_of(experiment):
            rewards = settings.models_of(settings.in_environment(experiment, environment))
            rewarded = dict.fromkeys(rewards, images)
            groups.append(Jobs("score", f"{name}/{environment}", seeds, rewarded=rewarded))
    return groups


def _by_arm(runs: list[Run]) -> Counter[tuple[str, str]]:
    return Counter((run.experiment, run.arm) for run in runs)


def _train(settings: Settings, experiment: str, arm: str, name: str, seeds: int) -> Jobs:
    own = settings.of_arm(arm)
    rollout, training = own.rollout, own.training
    images = training.iterations * rollout.prompts_per_iteration * rollout.group_size
    forwards, updates = arm_work(own, arm)
    entry = settings.experiments[experiment]
    rewards = settings.models_of([entry.training_reward, *entry.diagnostics])
    return Jobs(
        "train",
        name,
        seeds,
        forwards=images * forwards,
        updates=images * updates,
        decoded=images,
        rewarded=dict.fromkeys(rewards, images),
        policies=1 + snapshots(settings),
    )


def _evaluated(settings: Settings, trained: bool) -> int:
    """Images of one run: the last policy on all prompts, snapshots on the curves' prompts."""
    wanted = settings.evaluation
    curves = snapshots(settings) * wanted.curve_prompts if trained else 0
    return (wanted.prompts + curves) * wanted.samples_per_prompt
