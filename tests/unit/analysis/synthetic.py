"""Made-up runs with known effects, written as the workflow writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from bpgo.analysis.collect import write_compact
from bpgo.config.declared import AnalysisSettings, PrimaryContrast
from bpgo.config.evaluation import EvaluationSettings
from bpgo.config.fields import Strict
from bpgo.config.model import ModelSettings
from bpgo.config.paper import PaperMetric, PaperSettings
from bpgo.config.settings import (
    CalibrationSettings,
    ExperimentSettings,
    PromptSettings,
    RewardSettings,
    RolloutSettings,
    Run,
    Settings,
    SweepSettings,
    TrainingSettings,
)
from bpgo.storage.files import sha256, write_json
from bpgo.storage.seals import read_sealed, write_sealed
from bpgo.storage.tables import write_table

TITLES = {
    "grpo": "GRPO",
    "dance_grpo": "DanceGRPO",
    "flow_grpo": "Flow-GRPO",
    "bpgo": "BPGO",
    "bpgo_ras": "BPGO, RAS only",
    "bpgo_crt": "BPGO, CRT only",
    "bpgo_released": "BPGO, released form",
    "bpgo_ras_shuffled": "RAS, shuffled",
}

# Gain of each arm in base sd at the end of training: (training reward, held-out, oracle).
EFFECTS = {
    "grpo": (0.9, -0.2, -0.35),
    "dance_grpo": (0.85, -0.2, -0.3),
    "flow_grpo": (0.6, -0.1, -0.15),
    "bpgo": (0.8, 0.1, -0.05),
    "bpgo_ras": (0.8, 0.05, -0.1),
    "bpgo_crt": (0.8, -0.15, -0.35),
    "bpgo_released": (0.85, -0.1, -0.25),
}


# Options of `make_settings` for a quick set.
TINY = {
    "arms": ("grpo", "bpgo"),
    "seeds": (1, 2),
    "clear": False,
    "sweep": (),
    "prompts": 16,
    "curve_prompts": 8,
    "iterations": 4,
    "snapshot_every": 2,
    "bootstrap_samples": 50,
}
SMALL = {
    "arms": ("grpo", "flow_grpo", "bpgo", "bpgo_ras", "bpgo_crt"),
    "prompts": 128,
    "curve_prompts": 32,
    "iterations": 20,
    "snapshot_every": 5,
    "sweep": (0.1, 0.9),
    "bootstrap_samples": 500,
}


class FakeArm(Strict):
    """Just enough of an arm's settings."""

    algorithm: str = "fake"
    title: str
    alpha: float = 0.5


def make_settings(
    arms: tuple[str, ...] = tuple(EFFECTS),
    seeds: tuple[int, ...] = (1, 2, 3),
    clear: bool = True,
    sweep: tuple[float, ...] = (0.1, 0.7, 0.9),
    prompts: int = 512,
    curve_prompts: int = 128,
    iterations: int = 80,
    snapshot_every: int = 20,
    bootstrap_samples: int = 2000,
    oracle: bool = True,
) -> Settings:
    """A configuration in the form of the embedded default; without an oracle, of a real one."""

    metric = "oracle" if oracle else "scenes_ambiguous_b"
    declared = PrimaryContrast(arm="bpgo", reference="grpo", metric=metric)

    def experiment(world: str, names: tuple[str, ...]) -> ExperimentSettings:
        rewards = [f"scenes_{world}_{pool}" for pool in "abc"]
        paper = PaperSettings(
            table="table2",
            task="T2I (FLUX)",
            metrics={rewards[0]: "HPSv2", rewards[1]: "PickScore"},
        )
        return ExperimentSettings(
            title=f"Scenes, {world} world",
            training_reward=rewards[0],
            judges=[*rewards[1:], *(["oracle", "oracle_strict"] if oracle else [])],
            diagnostics=["oracle"] if oracle else rewards[1:],
            arms=list(names),
            seeds=list(seeds),
            primary=declared if world == "ambiguous" else None,
            paper=None if oracle else paper,
        )

    worlds = {"ambiguous": experiment("ambiguous", arms)}
    if clear:
        worlds["clear"] = experiment("clear", ("grpo", "bpgo"))
    rewards = {
        f"scenes_{world}_{pool}": RewardSettings(
            kind="scenes_preference", title=f"Preference {pool.upper()}"
        )
        for world in worlds
        for pool in "abc"
    }
    if oracle:
        rewards["oracle"] = RewardSettings(kind="scenes_oracle", title="Oracle")
        rewards["oracle_strict"] = RewardSettings(kind="scenes_oracle", title="Oracle, strict")
    sweeps = {}
    if sweep:
        sweeps["alpha"] = SweepSettings(
            experiment="ambiguous", arm="bpgo_ras", setting="alpha", values=list(sweep)
        )
    known = {name: FakeArm(title=TITLES.get(name, name)) for name in (*arms, "grpo", "bpgo")}
    for entry in sweeps.values():
        known.setdefault("bpgo_ras", FakeArm(title=TITLES["bpgo_ras"]))
        for value in entry.values:
            title = f"{TITLES['bpgo_ras']}, alpha = {value:g}"
            known[entry.arm_at(value)] = FakeArm(title=title, alpha=value)
    return Settings(
        title="Synthetic <suite> & co",
        model=ModelSettings(
            kind="flux", title="Tiny", path="nowhere", resolution=24, prompt_tokens=16
        ),
        prompts=PromptSettings(kind="scenes", train=256, evaluation=prompts),
        experiments=worlds,
        sweeps=sweeps,
        arms=known,
        rewards=rewards,
        rollout=RolloutSettings(prompts_per_iteration=8, group_size=12, steps=8),
        training=TrainingSettings(
            iterations=iterations,
            optimizer_steps=4,
            learning_rate=3e-4,
            snapshot_every=snapshot_every,
            checkpoint_every=20,
        ),
        evaluation=EvaluationSettings(prompts=prompts, curve_prompts=curve_prompts, steps=8),
        calibration=CalibrationSettings(
            prompts=256,
            samples_per_prompt=12,
        ),
        analysis=AnalysisSettings(
            main_metric=metric,
            bootstrap_samples=bootstrap_samples,
        ),
    )


def as_video(settings: Settings, task: Literal["t2v", "i2v"], paper: bool = True) -> Settings:
    """The same runs as those of a video model, the paper's numbers beside the first experiment."""
    first, entry = next(iter(settings.experiments.items()))
    metrics: tuple[PaperMetric, ...] = ("VideoCLIP-XL", "VA-TA", "VA-overall")
    numbers = PaperSettings(
        table="table1",
        task="T2V" if task == "t2v" else "I2V",
        metrics=dict(zip(settings.rewards_of(first), metrics, strict=False)),
    )
    changed = entry.model_copy(update={"paper": numbers if paper else None})
    sizes = {"task": task, "frames": 5, "frames_per_second": 8.0, "width": 32}
    return settings.model_copy(
        update={
            "model": settings.model.model_copy(update=sizes),
            "experiments": {**settings.experiments, first: changed},
        }
    )


def has_oracle(settings: Settings) -> bool:
    return "oracle" in settings.rewards


def other_rewards(settings, run, truth, random):
    """Diagnostics that follow the hidden truth closely, each on a scale of its own."""
    names = settings.experiments[run.experiment].diagnostics
    return {
        name: 10.0**place * (truth + 0.1 * random.normal(0, 1, truth.shape)).ravel()
        for place, name in enumerate(names)
    }


def effects_of(arm: str) -> tuple[float, float, float]:
    """Known gains of an arm; a sweep's value has an optimum at 0.5."""
    if arm in EFFECTS:
        return EFFECTS[arm]
    if "_alpha_" in arm:
        value = float(arm.rsplit("_", 1)[1].replace("p", "."))
        return 0.8, 0.05 - 2 * (value - 0.5) ** 2, -0.1 - 2 * (value - 0.5) ** 2
    return 0.8, 0.0, 0.0


def write_root(
    settings: Settings,
    root: Path,
    seed_sd: float = 0.03,
    noise: float = 0.5,
    skip: tuple[Run, ...] = (),
) -> None:
    """All files under `root` that `collect` reads, except for the runs in `skip`."""
    random = np.random.default_rng(7)
    ids = np.array([f"e{i:04d}" for i in range(settings.evaluation.prompts)])
    ambiguity = random.choice([0, 0.2, 0.4, 0.6, 0.8, 1.0], len(ids))
    if not has_oracle(settings):
        ambiguity = np.full(len(ids), np.nan)
    prompt_effect = random.normal(0, 1, (len(ids), 5))
    for experiment in settings.experiments:
        _write_calibration(settings, root, experiment, random)
    untrained = [*settings.base_runs(), *settings.given_runs()]
    for run in [*untrained, *settings.runs()]:
        # Equal noise for all arms of a seed, as in the real samples.
        shared = np.random.default_rng([run.seed, len(run.experiment)])
        own = np.random.default_rng([run.seed, *run.arm.encode(), *run.experiment.encode()])
        base = prompt_effect + shared.normal(0, noise, prompt_effect.shape)
        change = (0.0,) * 3 if run.arm == "base" else effects_of(run.arm)
        if run.experiment == "clear" and run.arm != "base":
            change = (0.8, 0.5, 0.4)
        if run not in skip:
            _write_scores(settings, root, run, own, ids, ambiguity, base, change, seed_sd)
            if run not in untrained:
                _write_training(settings, root, run, own, change[0])


def _write_scores(settings, root, run, random, ids, ambiguity, base, change, seed_sd):
    rewards = settings.rewards_of(run.experiment)
    gains = np.array([change[0], change[1], change[1], change[2], change[2]])
    shift = random.normal(0, seed_sd, 5)
    final = settings.training.iterations
    trained = run.arm != "base" and run.arm not in settings.policies
    every = settings.training.snapshot_every
    frames = []
    for iteration in range(every, final + 1, every) if trained else [0]:
        n = len(ids) if iteration in (0, final) else settings.evaluation.curve_prompts
        share = 1.0 if run.arm in settings.policies else iteration / final
        score = base[:n] + share * (gains + shift)
        if run.arm != "base":
            score = score + random.normal(0, 0.3, (n, 5))
        score[:, 3:] = np.clip(
            np.round((score[:, 3:] + 4) * 2) / 16, 0, 1
        )  # an oracle's few levels
        frames.append(
            pd.DataFrame(
                {
                    "experiment": run.experiment,
                    "arm": run.arm,
                    "seed": run.seed,
                    "iteration": iteration,
                    "prompt_id": np.repeat(ids[:n], len(rewards)),
                    "ambiguity": np.repeat(ambiguity[:n], len(rewards)),
                    "sample": 0,
                    "reward": np.tile(rewards, n),
                    "score": score[:, : len(rewards)].ravel(),
                }
            )
        )
    path = root / "scores" / run.folder / "main.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pd.concat(frames, ignore_index=True), path)


def _write_training(settings, root, run, random, gain):
    folder = root / "runs" / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    steps, groups, size = settings.training.iterations, 8, settings.rollout.group_size
    iteration = np.arange(1, steps + 1)
    rise = gain * (1 - np.exp(-3 * iteration / steps)) + random.normal(0, 0.05, steps)
    prompt = np.random.default_rng(run.seed).integers(0, 256, (steps, groups))
    ambiguous = (prompt % 6) / 5
    fall = 1.0 if run.experiment == "ambiguous" else 0.0
    reliability = 0.7 * (1 - fall * ambiguous)
    oracle = random.normal(0, 1, (steps, groups, size))
    level = rise[:, None] - fall * ambiguous + 0.5 * np.sin(prompt)
    reward = level[..., None] + reliability[..., None] * oracle
    reward += np.sqrt(1 - reliability**2)[..., None] * random.normal(0, 1, oracle.shape)
    trusting = run.arm.startswith("bpgo") and "crt" not in run.arm
    weight = (
        1 + 0.5 * np.tanh(reward.mean(axis=2) + 0.3) if trusting else np.full_like(level, np.nan)
    )
    known = has_oracle(settings)
    extra = {"oracle": oracle.ravel()} if known else other_rewards(settings, run, oracle, random)
    rollouts = pd.DataFrame(
        {
            "iteration": np.repeat(iteration, groups * size),
            "prompt_id": [f"t{p:04d}" for p in np.repeat(prompt.ravel(), size)],
            "ambiguity": np.repeat(ambiguous.ravel(), size) if known else np.nan,
            "sample": np.tile(np.arange(size), steps * groups),
            "reward": reward.ravel(),
            **extra,
            "advantage": 0.0,
            "prior": -0.3 if trusting else np.nan,
            "weight": np.repeat(weight.ravel(), size),
        }
    )
    write_table(rollouts, folder / "rollouts.parquet")
    seconds = 0.64 + random.normal(0, 0.005, steps)
    metrics = pd.DataFrame(
        {
            "iteration": iteration,
            "reward_mean": reward.mean(axis=(1, 2)),
            "reward_std": reward.std(axis=(1, 2)),
            "seconds": seconds,
            "rollout_seconds": 0.42 * seconds,
            "reward_seconds": 0.02 * seconds,
            "update_seconds": 0.56 * seconds,
        }
    )
    write_table(metrics, folder / "metrics.parquet")
    write_json(
        folder / "manifest.json",
        {
            "config_digest": settings.run_digest(run),
            "code_digest": "c0de",
            "packages": {"torch": "2.13.0"},
            "hardware": {"processor": "Imaginary CPU", "cores": 2, "system": "Linux"},
            "python": "3.11",
            "wall_seconds": float(seconds.sum()),
        },
    )


def _write_calibration(settings, root, experiment, random):
    n, size = settings.calibration.prompts, settings.calibration.samples_per_prompt
    ambiguity = (np.arange(n) % 6) / 5
    fall = 1.0 if experiment == "ambiguous" else 0.0
    reliability = 0.7 * (1 - fall * ambiguity)[:, None]
    oracle = random.normal(0, 1, (n, size))
    columns = {}
    for name in settings.rewards_of(experiment):
        own = random.normal(0, 1, (n, size))
        score = reliability * oracle + np.sqrt(1 - reliability**2) * own
        score += (0.5 * np.sin(np.arange(n)) - fall * ambiguity)[:, None]
        columns[name] = oracle if name.startswith("oracle") else score
    path = root / "calibration" / experiment / "samples.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = pd.concat(
        pd.DataFrame(
            {
                "prompt_id": np.repeat([f"t{i:04d}" for i in range(n)], size),
                "ambiguity": np.repeat(ambiguity, size) if has_oracle(settings) else np.nan,
                "sample": np.tile(np.arange(size), n),
                "reward": name,
                "score": score.ravel(),
            }
        )
        for name, score in columns.items()
    )
    write_table(scores, path)


def swept_otherwise(settings, frames, setting, values):
    """Settings and frames as if the made-up runs of alpha 0.1 and 0.9 were of another setting."""
    entry = {"experiment": "ambiguous", "arm": "bpgo_ras", "setting": setting, "values": values}
    sweep = SweepSettings.model_validate(entry)
    old = [settings.sweeps["alpha"].arm_at(value) for value in (0.1, 0.9)]
    names = dict(zip(old, map(sweep.arm_at, values), strict=True))
    arms = {names.get(name, name): arm for name, arm in settings.arms.items()}
    changed = settings.model_copy(update={"sweeps": {"other": sweep}, "arms": arms})
    renamed = {
        name: frame.replace({"arm": names, "reference": names}) for name, frame in frames.items()
    }
    return changed, renamed


def put_collected(frame, folder, name):
    """Put a table in the place of a collected one, as if it had been collected."""
    write_compact(frame, folder / f"{name}.parquet")
    account = read_sealed(folder / "runs.json", "")
    digests = account["files"] | {f"{name}.parquet": sha256(folder / f"{name}.parquet")}
    write_sealed(folder / "runs.json", account | {"files": digests})
