"""How many prompts each reward read only in part."""

from __future__ import annotations

from pathlib import Path

from bpgo.analysis.roles import reward_title
from bpgo.config.runs import Run
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.storage.tables import read_table

Counts = dict[str, dict[str, dict[str, list[int]]]]  # experiment, reward, split: cut, all


def count_cut(settings: Settings, root: Path) -> Counts:
    """Numbers of prompts that were cut, and of all, of the rewards that would cut one.

    By the scores of the base policy's samples: of evaluation prompts, and of the training prompts
    that the calibration has. Scores of earlier versions do not tell; these are left out.
    """
    found: Counts = {}
    for name, entry in settings.experiments.items():
        base = root / "scores" / Run(name, BASE_ARM, entry.seeds[0]).folder
        splits = {"evaluation": sorted(base.glob("*.parquet"))}
        splits["training"] = sorted((root / "calibration" / name).glob("samples.parquet"))
        for split, paths in splits.items():
            for path in paths:
                remedy = "remove it, and the same command makes it again"
                table = read_table(path, remedy, sealed=False)  # `collect` has asked for seals
                prompts = table.drop_duplicates(["reward", "prompt_id"])
                for reward, rows in prompts.groupby("reward") if "cut" in prompts else ():
                    known = str(reward) in settings.rewards_of(name)
                    if known and settings.longest_prompt(str(reward)) is not None:
                        counts = found.setdefault(name, {}).setdefault(str(reward), {})
                        counts[split] = [int(rows["cut"].sum()), len(rows)]
    return found


def say_cut(settings: Settings, counts: Counts) -> list[str]:
    """A sentence for each reward that read a prompt only in part."""
    said = []
    for rewards in counts.values():
        for reward, splits in rewards.items():
            if any(cut for cut, _ in splits.values()):
                many = " and ".join(
                    f"{cut} of {number} {split} prompts" for split, (cut, number) in splits.items()
                )
                said.append(
                    f"{reward_title(settings, reward)} reads at most"
                    f" {settings.longest_prompt(reward)} tokens of a prompt: of {many} it read"
                    " only the beginning."
                )
    return list(dict.fromkeys(said))
