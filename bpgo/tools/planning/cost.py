"""Time, disk and memory of a configuration, from its counted work and a device's rates."""

from __future__ import annotations

from dataclasses import dataclass

from bpgo.config.settings import Settings
from bpgo.tools.planning.model import GB, ModelSize
from bpgo.tools.planning.rates import SIDE_BY_SIDE, Rates
from bpgo.tools.planning.work import Jobs, Work, drawn

# Measured on the embedded default's published run and its smoke run.
ROLLOUT_BYTES = 60  # of one training sample in `rollouts.*` and `metrics.*`
SCORE_BYTES = 12  # of one score
PNG_SHARE = 0.75  # of the raw pixels
PNG_SECONDS = 1e-3  # for one file, and
PNG_SECONDS_PER_PIXEL = 4e-8
BLOCK = 4096  # bytes: a disk holds whole blocks
ONCE_SECONDS = 5.0  # each of statistics, tables, plots, ...
KEPT_CHECKPOINTS = 2
COMPUTING = (
    *("draw", "calibrate", "judge", "train"),
    *("sample_base", "sample", "score", "harm_base", "harm"),
)


@dataclass(frozen=True)
class Time:
    """Seconds of one device for all jobs of a rule, and of the whole with several devices."""

    by_rule: dict[str, float]
    each: dict[str, float]  # of one job, from its start to its end
    devices: int
    devices_of_a_run: int  # of one training run
    wall: float

    @property
    def device_hours(self) -> float:
        """Hours of one device, the rules that compute."""
        return sum(self.by_rule.get(rule, 0.0) for rule in COMPUTING) / 3600


def time_of(
    work: Work, size: ModelSize, rates: Rates, devices: int, of_a_run: int, shared_cores: bool
) -> Time:
    """How long it takes.

    Args:
        work: from `bpgo.tools.planning.work`.
        size: of the model.
        rates: of one device.
        devices: GPUs, or cores.
        of_a_run: devices of one training run; they share out its work. Other jobs take one.
        shared_cores: whether jobs at a time slow each other (on a CPU).
    """
    slower = SIDE_BY_SIDE if shared_cores and devices > 1 else 1.0
    by_rule: dict[str, float] = {}
    counts = {rule: count for rule, count in work.jobs.items() if rule != work.target}
    for group in work.groups:
        seconds = slower * _job_seconds(group, size, rates) * group.count
        by_rule[group.rule] = by_rule.get(group.rule, 0.0) + seconds
    for rule, count in counts.items():
        by_rule.setdefault(rule, ONCE_SECONDS * count)
    wall, each = 0.0, {}
    for rule, seconds in by_rule.items():
        share = of_a_run if rule == "train" else 1
        at_a_time = min(max(1, devices // share), counts[rule])
        each[rule] = seconds / counts[rule] / share
        # A stage takes its share of the devices, and at least as long as one of its jobs.
        wall += each[rule] * counts[rule] / at_a_time
    return Time(by_rule, each, devices, of_a_run, wall)


def _job_seconds(jobs: Jobs, size: ModelSize, rates: Rates) -> float:
    if not (jobs.forwards or jobs.reward_calls):
        return rates.start(jobs.rule)
    files = jobs.files * (PNG_SECONDS + PNG_SECONDS_PER_PIXEL * size.pixels)
    return (
        rates.start(jobs.rule)
        + rates.loading
        + jobs.forwards * rates.forward
        + jobs.updates * rates.update
        + jobs.decoded * rates.decode
        + jobs.reward_calls * rates.reward
        + files
    )


@dataclass(frozen=True)
class Disk:
    """Gigabytes by what they are; `passing` is there while runs go on."""

    lasting: dict[str, float]
    passing: float

    @property
    def total(self) -> float:
        """At the fullest moment."""
        return sum(self.lasting.values()) + self.passing


def disk_of(settings: Settings, work: Work, size: ModelSize, parallel: int) -> Disk:
    """Space below `results/`; the hub's cache is counted apart (`gigabytes` of each file)."""
    image = -(-int(3 * size.pixels * PNG_SHARE) // BLOCK) * BLOCK
    samples_trained = sum(
        group.count * group.decoded for group in work.groups if group.rule == "train"
    )
    policies = work.total("policies") * size.policy_bytes + samples_trained * ROLLOUT_BYTES
    scores = work.total("reward_calls", "score") + work.total("reward_calls", "calibrate")
    averages = 2 + (settings.training.ema_decay > 0)
    checkpoint = size.policy_bytes * (1 + averages)
    running = min(parallel, work.jobs.get("train", 0))
    return Disk(
        {
            "runs": policies / GB,
            "samples": work.total("files") * image / GB,
            "draws": work.jobs["draw"] * drawn(settings) * size.latent_bytes / GB,
            "embeddings": work.texts * size.embedding_bytes / GB,
            "scores": 2 * scores * SCORE_BYTES / GB,
        },
        passing=running * KEPT_CHECKPOINTS * checkpoint / GB,
    )
