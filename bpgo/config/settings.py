"""The schema of a configuration: strict, frozen, every key with its unit.

`bpgo.config.resolve` reads YAML files into these classes. An arm, a reward and a model add keys of
their own by a subclass in their own file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, SerializeAsAny

from bpgo.config.declared import AnalysisSettings, PrimaryContrast
from bpgo.config.digests import JUDGING, digest_of, once_a_run
from bpgo.config.evaluation import CalibrationSettings, EvaluationSettings
from bpgo.config.fields import (
    Count,
    Few,
    Guidance,
    Many,
    Name,
    NonNegative,
    Positive,
    Seed,
    Share,
    Steps,
    Strict,
    Title,
    each_once,
)
from bpgo.config.given import GivenPolicy
from bpgo.config.groups import GroupSettings
from bpgo.config.machine import MachineSettings
from bpgo.config.model import ModelSettings
from bpgo.config.paper import PaperSettings
from bpgo.config.published import FeatureSettings, Published
from bpgo.config.runs import Run, Sampler
from bpgo.config.variants import SweepSettings, TuneSettings, set_at, swept_by
from bpgo.storage.files import text_digest

BASE_ARM = "base"  # the untrained policy: sampled and scored like an arm, never trained
MAIN = "main"  # the environment that trains, and whose rewards the base policy is calibrated on
CLIP_SHARE = 0.1  # largest tolerance of first ratios, as a share of an arm's clip range


class PromptSettings(Strict):
    """What all prompt sets share; a kind's file subclasses it with its own keys."""

    kind: str  # key of bpgo.registry.PROMPTS
    train: Count  # how many train
    evaluation: Count  # how many judge; no prompt does both
    seed: Seed = 0  # of the choice and the order
    source: str = ""  # where it comes from

    @property
    def has_first_frames(self) -> bool:
        """Whether its prompts come with a first frame (image to video)."""
        return False

    @property
    def knows_ambiguity(self) -> bool:
        """Whether it is known how much each prompt leaves open."""
        return False

    def decides(self, split: Literal["train", "evaluation"]) -> dict[str, Any]:  # noqa: ARG002
        """The settings that decide the prompts of a split: all, where a kind says nothing else."""
        return self.model_dump(mode="json")

    def pinned(self, file: str) -> Self:  # noqa: ARG002 (for those who have something to say)
        """These settings with the digests of local files, so that their content counts as settings.

        `file` holds them; `UserError` for a local file that is missing or malformed.
        """
        return self

    def check_frames(self, size: tuple[int, int]) -> None:
        """`UserError` naming the first frame that is no image for clips of `size`, wide by high."""


class RewardSettings(Published):
    """What all rewards share; a reward's file subclasses it with its own keys."""

    kind: str  # key of bpgo.registry.REWARDS
    title: Title  # its name in tables and figures
    environment: Name = MAIN  # software that it needs: workflow/envs/{environment}.yaml
    source: str = ""  # where it comes from

    def part_names(self) -> list[str]:
        """The rewards that this one is made of, by name; none for a model."""
        return []

    def inner_names(self) -> list[str]:
        """The rewards that this one calls by itself, by name; their scores are not kept."""
        return []

    def world_file(self) -> str | None:
        """What it needs of the embedded image world's weights; `resolve` says where these lie."""
        return None

    @property
    def media(self) -> Literal["image", "video"]:
        """What it scores: images [B, 3, H, W], or clips [B, F, 3, H, W]."""
        return "image"

    @property
    def reads_text(self) -> bool:
        """Whether the prompt counts, beside the sample."""
        return True

    def longest_prompt(self) -> int | None:
        """The most tokens of a prompt that it reads; None: it reads every prompt whole, or none."""
        return None

    def count_tokens(self, texts: list[str]) -> list[int]:  # noqa: ARG002 (for those with an end)
        """How many tokens its tokenizer makes of each text; only where `longest_prompt` is one.

        `UserError` where the tokenizer is not on this machine.
        """
        return []

    def check_text(self, text: str) -> None:
        """`UserError` where it cannot score samples of the prompt `text`."""

    @property
    def needs_calibration(self) -> bool:
        """Whether it can be computed only where the base policy's rewards are known."""
        return False


class RolloutSettings(Strict):
    """How samples are drawn for training; equal for all arms but for those of sweeps."""

    prompts_per_iteration: Few  # P, groups in an iteration
    group_size: Annotated[Few, Field(ge=2)]  # G, samples of each prompt
    steps: Steps  # T, of the sampler in training
    deterministic_tail: Annotated[int, Field(ge=1)] = 1  # last steps without noise, never trained
    guidance_scale: Guidance = 1.0  # of classifier-free guidance; 1: none
    # Samples in one forward pass, in rollout and update alike; auto: what the GPU's memory takes,
    # measured when a run starts (without a GPU: 96).
    batch_size: Count | Literal["auto"] = 96


class TrainingSettings(Strict):
    """The optimizer and its surroundings; equal for all arms but for those of sweeps."""

    iterations: Many  # each draws samples and updates on them
    optimizer_steps: Count  # in each iteration
    # What is trained: all weights, or adapters (the model's `lora`).
    parameters: Literal["full", "lora"] = "full"
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"  # 8 bit: bitsandbytes, on a GPU
    learning_rate: Positive  # of AdamW, constant
    # Of single arms, where an equally sized search chose them for each (`snakemake tune`).
    learning_rates: dict[Name, Positive] = Field(default={}, exclude_if=lambda each: not each)
    betas: list[Share] = Field(default=[0.9, 0.999], min_length=2, max_length=2)  # of Adam
    weight_decay: NonNegative = 0.0  # of AdamW
    epsilon: Positive = 1e-8  # of Adam
    gradient_clip: Positive = 1.0  # largest global norm of a gradient
    # Of the average of weights that is judged; 0: none.
    ema_decay: Share = 0.0
    ema_every: Count = 8  # optimizer steps between its updates
    snapshot_every: Count  # iterations between policies kept for the curves
    checkpoint_every: Count  # iterations between resumable states
    # What an optimizer step trains, as the published codes do: all trained steps of some samples of
    # each group, or of some whole groups; or (`steps`) some trained steps of all samples.
    split: Literal["samples", "groups", "steps"] = "samples"
    # Largest |ratio - 1| before the first optimizer step of a batch; None: a tenth of the arm's
    # clip range, which is the most that is allowed. It is exactly 0 where the update's forward
    # passes have the rollout's rows: always in bfloat16, which keeps them, and in float32 but for
    # some 1e-7 where groups are dropped.
    ratio_tolerance: Positive | None = None

    def stages(self) -> list[int]:
        """The iterations after which a policy is kept and judged, the last one included."""
        return [*range(self.snapshot_every, self.iterations, self.snapshot_every), self.iterations]

    def of(self, arm: str) -> Self:
        """These settings as one arm is trained with them."""
        rate = self.learning_rates.get(arm, self.learning_rate)
        return self.model_copy(update={"learning_rate": rate, "learning_rates": {}})


class ExperimentSettings(Strict):
    """One world: what drives training, who judges, which arms, which seeds."""

    title: Title  # its name in tables and figures
    training_reward: Name  # drives training; a file of config/rewards
    # Rewards that score the trained policies; none of them trains.
    judges: Annotated[list[Name], Field(min_length=1), AfterValidator(each_once)]
    # Scored on training rollouts for analysis; no arm sees them.
    diagnostics: Annotated[list[Name], AfterValidator(each_once)] = Field(default=[])
    # Files of config/arms; {all_but: [...]}: all of them but those.
    arms: Annotated[list[Name], Field(min_length=1), AfterValidator(each_once)]
    # Each arm is trained once with each; arms of a seed share prompts and noise.
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(each_once)]
    primary: PrimaryContrast | None = None  # the one difference that it is to decide
    paper: PaperSettings | None = None  # where the paper reports the same model and rewards


class Settings(Strict):
    """A resolved configuration: everything inlined, nothing left to look up."""

    title: Title  # name of the whole, in report and tables
    scale: Literal["full", "smoke"] = "full"  # `snakemake smoke` or all of it
    # Folder of the embedded image world's weights: the shipped ones, or a replicate's
    # (`bpgo.config.world_weights`).
    world_weights: Annotated[str, Field(min_length=1)] | None = None
    model: SerializeAsAny[ModelSettings]  # the policy; a file of config/models
    prompts: SerializeAsAny[PromptSettings]  # where prompts come from; a file of config/prompts
    # Worlds, by name: rewards, arms, seeds.
    experiments: dict[Name, ExperimentSettings] = Field(min_length=1)
    # Ablations, by name: one setting over values.
    sweeps: dict[Name, SweepSettings] = Field(default={})
    # An equally sized search for every arm.
    tune: TuneSettings | None = Field(default=None, exclude_if=lambda tune: tune is None)
    # Policies that were trained elsewhere, by name: judged beside the arms.
    policies: dict[Name, GivenPolicy] = Field(default={}, exclude_if=lambda each: not each)
    arms: dict[Name, SerializeAsAny[BaseModel]]  # by name
    rewards: dict[Name, SerializeAsAny[RewardSettings]]  # by name
    rollout: RolloutSettings  # how training samples are drawn
    training: TrainingSettings  # the optimizer and its surroundings
    evaluation: EvaluationSettings  # how policies are judged
    calibration: CalibrationSettings  # the base policy's rewards, which anchor priors and scales
    analysis: AnalysisSettings  # what is declared before looking
    machine: MachineSettings = MachineSettings()  # what jobs use of it
    trust_groups: GroupSettings = GroupSettings()  # what `snakemake trust` judges rules on
    # Measure diversity and distance; a file of config/features; None: off.
    features: SerializeAsAny[FeatureSettings] | None = None

    @property
    def draws_diversity(self) -> bool:
        """Whether several samples of a prompt are compared."""
        return self.features is not None and self.evaluation.diversity_prompts > 0

    @property
    def measures_harm(self) -> bool:
        """Whether trained policies are measured beside their scores (`bpgo.steps.harm`)."""
        return self.features is not None or self.evaluation.divergence_prompts > 0

    @property
    def sharded(self) -> bool:
        """Whether several processes would spread the weights; a LoRA is small, and each has it."""
        return self.machine.shard_weights and self.training.parameters == "full"

    @property
    def judging_guidance(self) -> float | list[float]:
        """Guidance of the evaluation sampler: as in training, where nothing else is said."""
        wanted = self.evaluation.guidance_scale
        return self.rollout.guidance_scale if wanted is None else wanted

    def arms_of(self, experiment: str) -> list[str]:
        """The arms that an experiment trains: its own, then those that searches and sweeps add."""
        found = list(self.experiments[experiment].arms)
        if self.tune is not None and self.tune.experiment == experiment:
            found += [name for arm in list(found) for name in self.tune.names(arm)]
        for sweep in self.sweeps.values():
            if sweep.experiment == experiment:
                found += [sweep.arm_at(value) for value in sweep.values]
        return list(dict.fromkeys(found))

    def runs(self) -> list[Run]:
        """Every training run: arms x seeds of each experiment, then what search and sweeps add."""
        own = {name: list(entry.arms) for name, entry in self.experiments.items()}
        listed = [own, {name: self.arms_of(name) for name in own}]
        found = [
            Run(name, arm, seed)
            for arms in listed
            for name in arms
            for arm in arms[name]
            for seed in self.experiments[name].seeds
        ]
        return list(dict.fromkeys(found))

    def base_runs(self) -> list[Run]:
        """The untrained policy, sampled with the same evaluation noise as each seed's runs."""
        return [
            Run(name, BASE_ARM, seed)
            for name, experiment in self.experiments.items()
            for seed in experiment.seeds
        ]

    def given_runs(self) -> list[Run]:
        """Policies that were trained elsewhere, sampled with the noise of each seed's runs."""
        return [
            Run(name, policy, seed)
            for name, experiment in self.experiments.items()
            for policy in self.policies
            for seed in experiment.seeds
        ]

    def compared(self, experiment: str) -> list[str]:
        """What a table has beside the base policy: the experiment's arms, and given policies."""
        return [*self.experiments[experiment].arms, *self.policies]

    @property
    def apart(self) -> list[str]:
        """Arms whose variance over seeds is their own; a given policy's is of noise alone."""
        return [*self.analysis.own_variance, *self.policies]

    def sampler_of(self, experiment: str) -> Sampler:
        """What draws an experiment's calibration: the reference arm's, or the first arm's."""
        arms, reference = self.experiments[experiment].arms, self.analysis.reference_arm
        chosen = self.arms[reference if reference in arms else arms[0]]
        keys = ("kernel", "noise_level", "stochastic_steps")
        kernel, noise_level, noisy = (getattr(chosen, key, None) for key in keys)
        return Sampler(kernel or "ode", noise_level or 0.0, noisy)

    def of_arm(self, arm: str) -> Self:
        """These settings as one arm is trained with them: its learning rate, what a sweep sets.

        Everything that arms share is as it is here: the base policy's samples that anchor them, and
        how policies are judged.
        """
        swept, rates = swept_by(self.sweeps, arm), self.training.learning_rates
        own = arm if swept is None or arm in rates else swept[0].arm
        found = self.model_copy(update={"training": self.training.of(own)})
        if swept is None or (name := swept[0].block) is None:
            return found
        block = getattr(found, name)
        changed = type(block).model_validate(set_at(block.model_dump(), swept[0].inside, swept[1]))
        return found.model_copy(update={name: changed})

    def samplers(self) -> list[Sampler]:
        """The samplers of all calibrations, each once."""
        return list(dict.fromkeys(self.sampler_of(name) for name in self.experiments))

    def rewards_of(self, experiment: str) -> list[str]:
        """Names of the rewards that score an experiment: the training reward, then the judges."""
        chosen = self.experiments[experiment]
        return list(dict.fromkeys([chosen.training_reward, *chosen.judges]))

    def primary_contrasts(self) -> dict[str, PrimaryContrast]:
        """By experiment, where one is declared."""
        return {name: e.primary for name, e in self.experiments.items() if e.primary is not None}

    def models_of(self, names: Iterable[str]) -> list[str]:
        """What must be loaded to know the rewards `names`: of a sum its parts, not the sum."""
        return list(
            dict.fromkeys(
                model for name in names for model in self.rewards[name].part_names() or [name]
            )
        )

    def environments_of(self, experiment: str) -> list[str]:
        """The software environments those rewards need."""
        names = self.rewards_of(experiment)
        return list(dict.fromkeys(self.rewards[name].environment for name in names))

    def in_environment(self, experiment: str, environment: str) -> list[str]:
        """Names of the rewards that score an experiment in one of those environments."""
        names = self.rewards_of(experiment)
        return [name for name in names if self.rewards[name].environment == environment]

    def settings_of(self, names: list[str]) -> dict[str, RewardSettings]:
        """The settings that decide the rewards `names`: theirs, their parts', the inner ones'."""
        models = [*names, *self.models_of(names)]
        inner = [name for model in models for name in self.rewards[model].inner_names()]
        return {name: self.rewards[name] for name in [*models, *inner]}

    def longest_prompt(self, name: str) -> int | None:
        """The most tokens that reward `name`, its parts and inner rewards read; None: no bound."""
        limits = [entry.longest_prompt() for entry in self.settings_of([name]).values()]
        return min((most for most in limits if most is not None), default=None)

    def digest(self) -> str:
        """Digest of the whole configuration."""
        return text_digest(self.canonical())

    def canonical(self) -> str:
        """The configuration as one line of JSON with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @once_a_run
    def run_digest(self, run: Run) -> str:
        """Digest of exactly what decides one run's trained policy.

        Other arms, other seeds, the judges, evaluation prompts and titles are left out: adding an
        arm or a judge leaves the digests of the runs that exist. What other jobs depend on is in
        `bpgo.config.jobs`.
        """
        chosen = self.experiments[run.experiment]
        names, own = [chosen.training_reward, *chosen.diagnostics], self.of_arm(run.arm)
        parts = {
            "model": own.model,
            "prompts": self.prompts.decides("train"),
            "rewards": self.settings_of(names),
            "arm": self.arms[run.arm],
            "rollout": own.rollout,
            "training": own.training,
            "calibration": self.calibration,
            "calibrated_with": asdict(self.sampler_of(run.experiment)),
            "training_reward": chosen.training_reward,
            "diagnostics": chosen.diagnostics,
            "seed": run.seed,
        }
        if own.rollout != self.rollout:  # that drew what anchors it, and guides how it is judged
            parts["anchored_with"] = self.rollout
        return digest_of(parts, without=JUDGING)
