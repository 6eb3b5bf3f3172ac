"""What the offline track of trust rules needs of a configuration: rewards, members, digests."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from bpgo.config.digests import JUDGING, digest_of
from bpgo.config.settings import MAIN, Settings
from bpgo.errors import UserError
from bpgo.storage.files import repository_root, text_digest


def reference_arm(settings: Settings, experiment: str) -> str:
    """The arm whose sampler draws an experiment's groups, and whose advantages rules change."""
    arms, named = settings.experiments[experiment].arms, settings.analysis.reference_arm
    return named if named in arms else arms[0]


def reference_arms(settings: Settings) -> list[str]:
    """The arms whose sampler draws groups: the reference arm of each experiment."""
    return list(dict.fromkeys(reference_arm(settings, name) for name in settings.experiments))


def experiments_of(settings: Settings, arm: str) -> list[str]:
    """The experiments whose groups the sampler of `arm` draws."""
    found = [name for name in settings.experiments if reference_arm(settings, name) == arm]
    if not found:
        raise UserError(
            f"--arm: '{arm}' is no experiment's reference arm."
            f" Known: {', '.join(reference_arms(settings))}"
        )
    return found


def truth_of(settings: Settings, experiment: str) -> str:
    """The oracle that rankings are held against.

    Raises:
        UserError: the experiment has none among its diagnostics and judges.
    """
    entry = settings.experiments[experiment]
    for name in [*entry.diagnostics, *entry.judges]:
        if _is_oracle(settings, name):
            return name
    raise UserError(
        f"experiments.{experiment}: no oracle is among its diagnostics and judges; without the"
        " truth nobody can say which rule finds the groups that are right"
    )


def members_of(settings: Settings, experiment: str) -> list[str]:
    """The ensemble of an experiment: the parts of its training reward.

    Of a reward that is no sum: it and the experiment's learned judges.
    """
    entry = settings.experiments[experiment]
    parts = settings.rewards[entry.training_reward].part_names()
    if parts:
        return parts
    learned = [
        name
        for name in settings.in_environment(experiment, MAIN)
        if not _is_oracle(settings, name) and not settings.rewards[name].part_names()
    ]
    return list(dict.fromkeys([entry.training_reward, *learned]))


def scored_rewards(settings: Settings, arm: str) -> list[str]:
    """Every reward model that scores the groups of a sampler: trained on, member, truth, seen."""
    names: list[str] = []
    for experiment in experiments_of(settings, arm):
        entry = settings.experiments[experiment]
        names += [entry.training_reward, *members_of(settings, experiment), *entry.diagnostics]
        names.append(truth_of(settings, experiment))
    return settings.models_of(dict.fromkeys(names))


def groups_digest(settings: Settings, arm: str) -> str:
    """Digest of what the groups of a sampler depend on, beside the seed."""
    return digest_of(
        settings.model,
        settings.prompts.decides("train"),
        settings.rollout,
        settings.training.parameters,
        settings.trust_groups.iterations,
        settings.arms[arm],
        settings.settings_of(scored_rewards(settings, arm)),
        without=JUDGING,
    )


def rules_digest(settings: Settings, known: Mapping[str, BaseModel]) -> str:
    """Digest of what the rules `known` answer: all settings, theirs, and the code that is run."""
    folders = [repository_root() / "bpgo" / name for name in ("trust", "core", "steps")]
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    code = text_digest("".join(file.read_text(encoding="utf-8") for file in files))
    return digest_of(settings.digest(), dict(known), code)


def _is_oracle(settings: Settings, reward: str) -> bool:
    return "oracle" in settings.rewards[reward].kind
