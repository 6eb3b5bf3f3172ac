"""From YAML files to `Settings`: names resolved, values checked, one message for each mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bpgo import registry
from bpgo.config import arm_checks, given_files, tuning
from bpgo.config import checks as config_checks
from bpgo.config.arm_files import (
    arm_settings,
    feature_settings,
    named_arm,
    resolve_arms,
    rule_settings,
    rule_values,
)
from bpgo.config.library import (
    Library,
    library,
    mapping,
    named,
    optional,
    registered,
    validate,
)
from bpgo.config.messages import join, unknown_key
from bpgo.config.model import ModelSettings
from bpgo.config.options import WORKFLOW_OPTIONS, check_options
from bpgo.config.overlays import Files, files_of, lay_over, read_files
from bpgo.config.pipelines import check_model
from bpgo.config.places import located
from bpgo.config.published import FeatureSettings
from bpgo.config.published_files import check_architecture, check_environment, check_places
from bpgo.config.settings import ExperimentSettings, PromptSettings, RewardSettings, Settings
from bpgo.config.sweep_checks import check_setting, check_sweeps
from bpgo.config.variants import SweepSettings
from bpgo.config.world_weights import with_world_weights
from bpgo.config.yaml_files import read_yaml
from bpgo.errors import UserError, shown, suggest
from bpgo.storage.files import repository_root, write_text

__all__ = [
    "KEYS",
    "WORKFLOW_OPTIONS",
    "default_configfile",
    "load",
    "load_arm",
    "load_prompts",
    "load_resolved",
    "load_rules",
    "load_trust",
    "read_yaml",
    "resolve",
    "save_resolved",
    "validate",
]

# Keys of a configuration file. `resolve` itself makes scale, arms and rewards.
KEYS = sorted({*Settings.model_fields, "smoke", "overrides"} - {"scale", "arms", "rewards"})


def default_configfile() -> Path:
    """The configuration of the embedded default."""
    return repository_root() / "config" / "config.yaml"


def load(
    configfile: Files, scale: str = "full", given: Mapping[str, Any] | None = None
) -> Settings:
    """Read and resolve a configuration file such as `config/config.yaml`.

    Several files are laid over each other (`bpgo.config.overlays`); the first one's folder has the
    files that they name. `given` is what Snakemake's `--config` says beside them.
    """
    first, *others = files_of(configfile)
    try:
        values = read_files(configfile, given)
        check_options(values, str(first))
        values = {key: value for key, value in values.items() if key not in WORKFLOW_OPTIONS}
        last = read_files(others[-1], given) if others else None
        return resolve(values, Path(first).parent, str(first), scale, last=last)
    except UserError as error:
        raise located(error, configfile, scale, given) from None


def resolve(
    values: dict[str, Any],
    folder: Path,
    file: str = "config",
    scale: str = "full",
    whole: bool = True,
    last: dict[str, Any] | None = None,
) -> Settings:
    """Check `values` and inline what they name from `folder`/{arms,models,rewards,prompts}.

    With `scale="smoke"` the values under the key `smoke` are laid over the others, as a further
    file would be. `overrides.{kind}.{name}` does the same to one named file, such as
    `overrides: {models: {flux1_dev: {path: /data/FLUX.1-dev}}}`; what is overridden in a file that
    nothing uses is refused, but where `values` are not a `whole` configuration. Of files that are
    laid over each other only what the `last` one overrides: it may leave out arms of those before.

    Raises:
        UserError: naming the key, the value, what is allowed and the file.
    """
    _check_keys(values, file)
    values = dict(values)
    smoke = optional(values.pop("smoke", None), "smoke", file)
    _check_keys(smoke, file, "smoke")
    if scale == "smoke":
        values = lay_over(values, smoke, file)
    overrides = optional(values.pop("overrides", None), "overrides", file)
    arm_files = sorted(path.stem for path in (folder / "arms").glob("*.yaml"))
    experiments = _experiments(values, arm_files, file)
    sweeps = _sweeps(values, file)
    files = _library(folder, overrides, file)
    arms = resolve_arms(experiments, sweeps, files, file)
    tune = tuning.checked(values.get("tune"), experiments, arms, folder, file)
    if tune is not None:
        values["training"] = tuning.add_candidates(tune, experiments, arms, values, file)
    rewards = _resolve_rewards(experiments, files, file)
    model_file, model = _resolve_model(_text(values, "model", file), files, file)
    resolved = {
        **values,
        "tune": tune,
        "scale": scale,
        "model": model,
        "prompts": _resolve_prompts(_text(values, "prompts", file), files, file),
        "features": _resolve_features(values, files, file),
        "experiments": experiments,
        "sweeps": sweeps,
        "policies": given_files.checked(values.get("policies"), file),
        "arms": arms,
        "rewards": rewards,
    }
    settings = with_world_weights(validate(Settings, resolved, file), file)
    check_model(settings.model, model_file)
    settings = given_files.with_policies(settings, arm_files, file)
    _check(settings, arm_files, file)
    if whole:  # at smoke scale fewer arms are run: what is overridden for all may be for others
        if scale == "smoke":
            overrides = optional(smoke.get("overrides"), "smoke.overrides", file)
            last = None if last is None else last.get("smoke") or {}
        files.check_used(_of_last(overrides, last), settings.training.learning_rates)
    return settings


def _check_keys(values: dict[str, Any], file: str, above: str = "") -> None:
    """The keys of a configuration, or of what `smoke` lays over it."""
    known = [key for key in KEYS if key != above]
    for key in values:
        if key not in known:
            allowed = known if above else [*known, *WORKFLOW_OPTIONS]
            raise UserError(unknown_key(file, join(above, str(key)), str(key), allowed))


def _library(folder: Path, overrides: dict[str, Any], file: str) -> Library:
    """The named files; overridden trust rules are checked, whether an arm has them or not."""
    files = library(folder, overrides, file)
    for name in files.overrides.get("trust", {}):
        rule = rule_values(name, files, file, f"overrides.trust.{name}")
        rule_settings(rule, f"{file}: overrides.trust.{name}", "")
    return files


def _sweeps(values: dict[str, Any], file: str) -> dict[str, SweepSettings]:
    """The sweeps, each over a setting that an arm may have for itself."""
    entries = named(optional(values.get("sweeps"), "sweeps", file), "sweeps", file)
    found = {
        name: validate(SweepSettings, entry, file, f"sweeps.{name}")
        for name, entry in entries.items()
    }
    for name, sweep in found.items():
        check_setting(name, sweep, file)
    return found


def _check(settings: Settings, arm_files: list[str], file: str) -> None:
    """Rules that join several keys or files."""
    config_checks.check_sizes(settings, file)
    config_checks.check_analysis(settings, arm_files, file)
    config_checks.check_learning_rates(settings, arm_files, file)
    config_checks.check_paper(settings, file)
    config_checks.check_task(settings, file)
    config_checks.check_measured(settings, file)
    arm_checks.check_arms(settings, file)
    check_sweeps(settings, file)
    config_checks.check_kernels(settings, file)
    config_checks.check_guidance(settings, file)
    config_checks.check_embedded(settings, file)


def _of_last(overrides: dict[str, Any], last: dict[str, Any] | None) -> dict[str, Any]:
    """The overrides, or of several files' those that the last one says and that stay."""
    if last is None:
        return overrides
    said = last.get("overrides") or {}
    return {
        kind: {
            name: change
            for name, change in (said.get(kind) or {}).items()
            if name in entries and isinstance(change, dict)
        }
        for kind, entries in overrides.items()
    }


def load_prompts(name: str, folder: Path) -> PromptSettings:
    """The prompt set of `folder`/prompts/`name`.yaml."""
    return _resolve_prompts(name, library(Path(folder), {}, str(folder)), str(folder))


def load_arm(name: str, folder: Path) -> Any:
    """The settings of `folder`/arms/`name`.yaml, with its whole trust rule: an `ArmSettings`."""
    return named_arm(name, library(Path(folder), {}, str(folder)), str(folder), "arms")


def load_rules(
    configfile: Files, scale: str = "full", given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Every rule of the folder `trust` beside the first file, by name: `TrustSettings`.

    What the configuration overrides in a rule counts; `given` as for `load`.
    """
    first = files_of(configfile)[0]
    file, folder, values = str(first), Path(first).parent, read_files(configfile, given)
    if scale == "smoke":
        values = lay_over(values, optional(values.get("smoke"), "smoke", file), file)
    files = library(folder, optional(values.get("overrides"), "overrides", file), file)
    return {
        path.stem: rule_settings(rule_values(path.stem, files, file, "trust"), str(path), "")
        for path in sorted((folder / "trust").glob("*.yaml"))
    }


def load_trust(name: str, folder: Path) -> Any:
    """The settings of `folder`/trust/`name`.yaml: a `TrustSettings`."""
    values = rule_values(name, library(Path(folder), {}, str(folder)), str(folder), "trust")
    return rule_settings(values, str(Path(folder) / "trust" / f"{name}.yaml"), "")


def save_resolved(settings: Settings, path: Path) -> None:
    """Write a resolved configuration that `load_resolved` reads back unchanged."""
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(path, "# Made by `resolve`; edit the files under config/ instead.\n" + text)


def load_resolved(path: Path) -> Settings:
    """Read what `save_resolved` wrote."""
    values, file = read_yaml(path), str(path)
    if "arms" not in values or "rewards" not in values:
        raise UserError(
            f"{file}: is not a resolved configuration; `python -m bpgo resolve --configfile {file}`"
            " makes one"
        )
    arms = {
        name: arm_settings(entry, file, f"arms.{name}")
        for name, entry in _entries(values, "arms", file)
    }
    rewards = {
        name: validate(_reward_settings(entry, file), entry, file, f"rewards.{name}")
        for name, entry in _entries(values, "rewards", file)
    }
    entry = mapping(values.get("prompts"), "prompts", file)
    prompts = validate(_prompt_settings(entry, file), entry, file, "prompts")
    resolved = {**values, "arms": arms, "rewards": rewards, "prompts": prompts}
    if values.get("features") is not None:
        entry = mapping(values["features"], "features", file)
        schema = feature_settings(entry, file, "features")
        resolved["features"] = validate(schema, entry, file, "features")
    return validate(Settings, resolved, file)


def _experiments(
    values: dict[str, Any], arm_files: list[str], file: str
) -> dict[str, ExperimentSettings]:
    """The experiments, of which there is one at least."""
    entries = named(values.get("experiments"), "experiments", file)
    if not entries:
        raise UserError(f"{file}: experiments: {{}} is not allowed: it must be at least 1 entry")
    return {
        name: _experiment(entry, arm_files, file, f"experiments.{name}")
        for name, entry in entries.items()
    }


def _experiment(entry: Any, arm_files: list[str], file: str, key: str) -> ExperimentSettings:
    """An experiment; `arms: {all_but: [...]}` are all of the folder `arms` but those named."""
    arms = entry.get("arms") if isinstance(entry, dict) else None
    if isinstance(arms, dict):
        left_out = arms.get("all_but")
        if set(arms) != {"all_but"} or not isinstance(left_out, list):
            raise UserError(
                f"{file}: {key}.arms: must be a list of arms, or all_but with a list of those that"
                f" are left out, not {shown(arms)}"
            )
        for name in left_out:
            if name not in arm_files:
                raise UserError(
                    f"{file}: {key}.arms.all_but: '{name}' is no arm of the folder arms."
                    f"{suggest(str(name), arm_files)}"
                )
            if left_out.count(name) > 1:
                raise UserError(f"{file}: {key}.arms.all_but: '{name}' is listed twice")
        entry = {**entry, "arms": [name for name in arm_files if name not in left_out]}
    return validate(ExperimentSettings, entry, file, key)


def _resolve_rewards(
    experiments: dict[str, ExperimentSettings], files: Library, file: str
) -> dict[str, RewardSettings]:
    rewards: dict[str, RewardSettings] = {}
    for experiment, entry in experiments.items():
        named = {"training_reward": [entry.training_reward]}
        named |= {"judges": entry.judges, "diagnostics": entry.diagnostics}
        for key, names in named.items():
            for name in names:
                place = f"experiments.{experiment}.{key}"
                _add_reward(rewards, name, files, file, place)
                if key != "judges":
                    config_checks.check_in_training(name, rewards[name], key, f"{file}: {place}")
    return rewards


def _add_reward(
    rewards: dict[str, RewardSettings], name: str, files: Library, file: str, key: str
) -> None:
    """Put the reward `name` into `rewards`, and those that it names."""
    path, reward = _reward(name, files, file, key)
    rewards[name] = reward
    for part in reward.part_names():
        config_checks.check_part(part, _reward(part, files, path, "parts")[1], reward, path)
        _add_reward(rewards, part, files, path, "parts")
    for inner in reward.inner_names():
        config_checks.check_inner(inner, _reward(inner, files, path, "reward")[1], reward, path)
        _add_reward(rewards, inner, files, path, "reward")


def _reward(name: str, files: Library, file: str, key: str) -> tuple[str, RewardSettings]:
    path, values = files.read("rewards", name, file, key)
    reward = validate(_reward_settings(values, path), values, path)
    check_places(reward, path)
    check_environment(reward, path)
    check_architecture(reward, path)
    return path, reward


def _reward_settings(values: dict[str, Any], file: str) -> type[RewardSettings]:
    kind = registered(values, "kind", registry.REWARDS, "a registered reward", file)
    return registry.load_reward_class(kind).Settings


def _resolve_model(name: str, files: Library, file: str) -> tuple[str, ModelSettings]:
    path, values = files.read("models", name, file, "model")
    model = validate(ModelSettings, values, path)
    registered(values, "kind", registry.MODELS, "a registered model", path)
    check_places(model, path)
    return path, model


def _resolve_features(values: dict[str, Any], files: Library, file: str) -> FeatureSettings | None:
    if values.get("features") is None:
        return None
    path, found = files.read("features", _text(values, "features", file), file, "features")
    features = validate(feature_settings(found, path), found, path)
    check_places(features, path)
    return features


def _resolve_prompts(name: str, files: Library, file: str) -> PromptSettings:
    path, values = files.read("prompts", name, file, "prompts")
    return validate(_prompt_settings(values, path), values, path).pinned(path)


def _prompt_settings(values: dict[str, Any], file: str) -> type[PromptSettings]:
    kind = registered(values, "kind", registry.PROMPTS, "a registered kind of prompt set", file)
    return registry.load_prompts_class(kind).Settings


def _entries(values: dict[str, Any], key: str, file: str) -> list[tuple[str, dict[str, Any]]]:
    """The mappings below a key, by name."""
    entries = mapping(values[key], key, file)
    return [(name, mapping(entry, f"{key}.{name}", file)) for name, entry in entries.items()]


def _text(values: dict[str, Any], key: str, file: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise UserError(f"{file}: {key}: must name a file under config/, not {shown(value)}")
    return value
