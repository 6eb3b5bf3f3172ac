"""What each trust rule makes of stored groups: nothing is drawn, nothing is trained.

Per group, with A its advantages by the reference arm without a rule, a those with the rule (all
terms of the objective, each times its weight and its samples' scale, added up) and y the oracle
less its mean in the group:

- `weight` = <a, A> / <A, A>, the multiple of A that is nearest to a. Of a rule that gives weights
  it is the weight itself; terms on transformed rewards count by what they add along A.
- `gain` = mean over the samples of a y: by how much the update of this group raises the oracle, to
  first order; `plain_gain` with A in a's place.
- `square` = mean over the samples of a a: how much the group adds to the update's length;
  `plain_square` with A.
- `gamma`: Goodman-Kruskal rank agreement of reward and oracle (NaN: no pair without a tie).

`bpgo.analysis.statistics.efficiency` makes figures of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bpgo import seeding
from bpgo.config import contents
from bpgo.config.offline import groups_digest, members_of, reference_arm, scored_rewards, truth_of
from bpgo.config.settings import Settings
from bpgo.core.arm import Arm
from bpgo.core.trust import TrustSettings
from bpgo.errors import UserError, suggest
from bpgo.records import AdvantageResult, Calibration, GroupRewards
from bpgo.registry import load_arm_class
from bpgo.steps.group_table import Batch, read_groups, read_rollouts
from bpgo.steps.seen_groups import Seen, seen_groups
from bpgo.storage.files import atomic_files
from bpgo.storage.seals import write_sealed
from bpgo.storage.tables import write_table
from bpgo.trust.measures import goodman_kruskal

BASE, UNIFORM = "base", "uniform"  # the source of groups that no run drew; no rule
FEWEST = 8  # groups of one experiment and source; intervals over fewer say nothing


@dataclass(frozen=True)
class Stream:
    """Groups in the order of training: of an experiment, drawn by `source` with a seed."""

    experiment: str
    source: str  # `base`, or a trained arm
    seed: int
    batches: list[Batch]


def rules(
    settings: Settings,
    known: Mapping[str, TrustSettings],
    root: Path,
    runs: list[Path],
    output: Path,
) -> None:
    """Give each rule of `known` the stored groups of all experiments, and write what follows.

    Args:
        settings: the configuration.
        known: rules by name.
        root: holds trust/groups and calibration as the workflow writes them.
        runs: folders of trained runs, .../{experiment}/{arm}/seed_{n}, whose groups join.
        output: a folder; `judged.parquet` has a row for each rule and group, as this module says;
            `rules.json` says of each rule what it reads, or why it has no row.

    Raises:
        UserError: a file is missing, cut or of other settings; too few groups.
    """
    torch.set_num_threads(1)
    anchors = {
        name: Calibration.load(
            root / "calibration" / name / "calibration.json", contents.calibration(settings, name)
        )
        for name in settings.experiments
    }
    streams = _base_streams(settings, root) + [_run_stream(settings, folder) for folder in runs]
    _check_enough(streams)
    frames: list[pd.DataFrame] = []
    notes: dict[tuple[str, ...], dict[str, str]] = {}
    for stream in streams:
        drawn = [
            batch
            for other in streams
            if (other.experiment, other.source) == (stream.experiment, BASE)
            for batch in other.batches
        ]
        anchor = anchors[stream.experiment]
        seen = seen_groups(settings, stream.experiment, stream.batches, anchor, drawn)
        for name, table, said in _answers(settings, stream, seen, known):
            labels = {"experiment": stream.experiment, "source": stream.source, "rule": name}
            notes.setdefault(tuple(labels.values()), {**labels, **said})
            if table is not None:
                frames.append(table.assign(seed=stream.seed, **labels))
    with atomic_files(output / "rules.json") as folder:
        table = pd.concat(frames, ignore_index=True)
        write_table(table, folder / "judged.parquet", compression="zstd")
        write_sealed(folder / "rules.json", {"notes": list(notes.values())})


def _answers(
    settings: Settings, stream: Stream, seen: Seen, known: Mapping[str, TrustSettings]
) -> Iterator[tuple[str, pd.DataFrame | None, dict[str, str]]]:
    """Of each rule its name, its rows (None: it has none), and `lacks` (why), `note`."""
    plain: dict[bool, Tensor] = {}  # by whether the rewards are the members' mean
    for name, rule in {UNIFORM: None, **known}.items():
        said = {"lacks": seen.lacks(rule) or "", "note": seen.note(rule)}
        table = None
        if not said["lacks"]:
            groups, summed = seen.groups(rule), seen.sums(rule)
            if summed not in plain:
                plain[summed] = _advantages(settings, stream, groups, None)
            try:
                given = _advantages(settings, stream, groups, rule)
                table = _judged(settings, stream, groups, plain[summed], given)
            except UserError as error:  # the rule's own word
                said["lacks"] = " ".join(str(error).split())
        yield name, table, said


def _base_streams(settings: Settings, root: Path) -> list[Stream]:
    found = []
    for experiment in settings.experiments:
        arm = reference_arm(settings, experiment)
        names, digest = scored_rewards(settings, arm), groups_digest(settings, arm)
        for seed in settings.trust_groups.seeds:
            path = root / "trust" / "groups" / arm / f"seed_{seed}.parquet"
            found.append(Stream(experiment, BASE, seed, read_groups(path, digest, names)))
    return found


def _run_stream(settings: Settings, folder: Path) -> Stream:
    """The groups that a trained run drew."""
    *_, experiment, arm, last = ("", "", *folder.resolve().parts)
    seed = last.removeprefix("seed_")
    if experiment not in settings.experiments or not seed.isdigit():
        raise UserError(
            f"--run: '{folder}' must end in EXPERIMENT/ARM/seed_N, with an experiment of this"
            f" configuration.{suggest(experiment, settings.experiments)}"
            f" Known: {', '.join(settings.experiments)}"
        )
    entry = settings.experiments[experiment]
    others = [*members_of(settings, experiment), *entry.diagnostics]
    path = folder / "rollouts.parquet"
    batches = read_rollouts(path, entry.training_reward, others)
    truth = truth_of(settings, experiment)
    if truth not in batches[0].scores:
        raise UserError(f"{path}: has no column {truth}: it must be among the run's diagnostics")
    return Stream(experiment, arm, int(seed), batches)


def _check_enough(streams: list[Stream]) -> None:
    counts: dict[tuple[str, str], int] = {}
    for stream in streams:
        key = (stream.experiment, stream.source)
        groups = sum(len(batch.prompt_ids) for batch in stream.batches)
        counts[key] = counts.get(key, 0) + groups
    for (experiment, source), count in counts.items():
        if count < FEWEST:
            raise UserError(
                f"trust_groups: experiment '{experiment}' has {count} groups drawn by '{source}',"
                f" and {FEWEST} are the fewest that say anything: raise trust_groups.iterations"
            )


def _judged(
    settings: Settings, stream: Stream, groups: list[GroupRewards], plain: Tensor, given: Tensor
) -> pd.DataFrame:
    """One row a group, in the order of training; advantages `[N, G]` without and with the rule."""
    batches, truth = stream.batches, truth_of(settings, stream.experiment)
    oracle = torch.cat([batch.scores[truth] for batch in batches]).double()
    means = groups[0].calibration.prompt_means if groups[0].calibration else {}
    rewards = torch.cat([each.rewards for each in groups])
    columns = {**contributions(plain, given, oracle), "gamma": goodman_kruskal(rewards, oracle)}
    prompts = [prompt for batch in batches for prompt in batch.prompt_ids]
    return pd.DataFrame(
        {
            "iteration": [batch.iteration for batch in batches for _ in batch.prompt_ids],
            "prompt_id": prompts,
            "ambiguity": torch.cat([batch.ambiguity for batch in batches]).numpy(),
            "base_mean": [means.get(prompt, float("nan")) for prompt in prompts],
            **{name: values.numpy() for name, values in columns.items()},
        }
    )


def _advantages(
    settings: Settings, stream: Stream, groups: list[GroupRewards], rule: TrustSettings | None
) -> Tensor:
    """Advantages of all groups `[N, G]`: the rule sees them batch by batch, as in training."""
    chosen: Any = settings.arms[reference_arm(settings, stream.experiment)]
    arm: Arm = load_arm_class(chosen.algorithm)(chosen.model_copy(update={"trust": rule}))
    found = []
    for batch, each in zip(stream.batches, groups, strict=True):
        draws = seeding.generator(stream.seed, "arm", batch.iteration)
        found.append(net_advantage(arm.advantages(each, draws)))
    return torch.cat(found)


def net_advantage(result: AdvantageResult) -> Tensor:
    """What all terms of an objective together give each sample, `[P, G]` float64.

    Of advantages over steps or latent sites the mean over these counts.
    """
    total = torch.zeros((), dtype=torch.float64)
    for term in result.terms:
        advantage = term.advantage.double()
        if advantage.ndim > 2:
            advantage = advantage.flatten(2).mean(dim=2)
        scale = 1.0 if term.scale is None else term.scale.double()
        total = total + term.weight * scale * advantage
    return total


def contributions(plain: Tensor, given: Tensor, oracle: Tensor) -> dict[str, Tensor]:
    """`weight`, `gain`, `square`, `plain_gain`, `plain_square`, each `[P]`, of advantages `[P, G]`.

    See the module's description. A group without any plain advantage has the weight NaN.
    """
    truth = oracle - oracle.mean(dim=1, keepdim=True)
    along, length = (given * plain).mean(dim=1), plain.square().mean(dim=1)
    return {
        "weight": along / length.masked_fill(length == 0, float("nan")),
        "gain": (given * truth).mean(dim=1),
        "square": given.square().mean(dim=1),
        "plain_gain": (plain * truth).mean(dim=1),
        "plain_square": length,
    }
