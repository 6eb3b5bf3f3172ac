"""From YAML files to `Settings`: names resolved, values checked, one message for each mistake."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from bpgo import registry
from bpgo.config import arm_checks
from bpgo.config import checks as config_checks
from bpgo.config.settings import (
    BASE_ARM,
    ExperimentSettings,
    ModelSettings,
    PromptSettings,
    RewardSettings,
    Settings,
    SweepSettings,
)
from bpgo.errors import UserError, suggest
from bpgo.storage.files import repository_root, write_text

Model = TypeVar("Model", bound=BaseModel)

# Keys of a configuration file. `resolve` itself makes scale, arms and rewards.
KEYS = sorted({*Settings.model_fields, "smoke", "overrides"} - {"scale", "arms", "rewards"})
# The workflow's own options, by default; a configuration file may hold them too.
WORKFLOW_OPTIONS = {"root": "results", "allow_mixed": False}
# Folders of named files; `overrides` changes single values of one for this configuration.
NAMED = ("arms", "models", "prompts", "rewards")


def default_configfile() -> Path:
    """The configuration of the embedded default."""
    return repository_root() / "config" / "config.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as a mapping; `UserError` if it is missing, broken or something else."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {_one_line(str(error))}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a mapping of keys to values")
    return values


def load(configfile: Path, scale: str = "full") -> Settings:
    """Read and resolve a configuration file such as `config/config.yaml`."""
    values = {k: v for k, v in read_yaml(configfile).items() if k not in WORKFLOW_OPTIONS}
    return resolve(values, Path(configfile).parent, str(configfile), scale)


def resolve(
    values: dict[str, Any], folder: Path, file: str = "config", scale: str = "full"
) -> Settings:
    """Check `values` and inline what they name from `folder`/{arms,models,rewards,prompts}.

    With `scale="smoke"` the values under the key `smoke` replace their namesakes (mappings merge,
    everything else is replaced). `overrides.{kind}.{name}` does the same to one named file, such as
    `overrides: {models: {flux1_dev: {path: /data/FLUX.1-dev}}}`.

    Raises:
        UserError: naming the key, the value, what is allowed and the file.
    """
    for key in values:
        if key not in KEYS:
            raise UserError(_unknown_key(file, str(key), str(key), KEYS))
    values = dict(values)
    smoke = values.pop("smoke", None)
    if scale == "smoke":
        values = _merge(values, _mapping(smoke or {}, "smoke", file))
    overrides = values.pop("overrides", None) or {}
    experiments = {
        name: validate(ExperimentSettings, entry, file, f"experiments.{name}")
        for name, entry in _mapping(values.get("experiments"), "experiments", file).items()
    }
    sweeps = {
        name: validate(SweepSettings, entry, file, f"sweeps.{name}")
        for name, entry in _mapping(values.get("sweeps") or {}, "sweeps", file).items()
    }
    library = _library(folder, overrides, file)
    arms = _resolve_arms(experiments, sweeps, library, file)
    rewards = _resolve_rewards(experiments, library, file)
    resolved = {
        **values,
        "scale": scale,
        "model": _resolve_model(_text(values, "model", file), library, file),
        "prompts": _resolve_prompts(_text(values, "prompts", file), library, file),
        "experiments": experiments,
        "sweeps": sweeps,
        "arms": arms,
        "rewards": rewards,
    }
    settings = validate(Settings, resolved, file)
    config_checks.check_sizes(settings, file)
    config_checks.check_paper(settings, file)
    config_checks.check_task(settings, file)
    arm_checks.check_arms(settings, file)
    config_checks.check_kernels(settings, file)
    return settings


def load_prompts(name: str, folder: Path) -> PromptSettings:
    """The prompt set of `folder`/prompts/`name`.yaml."""
    return _resolve_prompts(name, _Library(Path(folder), {}), str(folder))


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
        name: validate(_arm_settings(entry, file), entry, file, f"arms.{name}")
        for name, entry in _entries(values, "arms", file)
    }
    rewards = {
        name: validate(_reward_settings(entry, file), entry, file, f"rewards.{name}")
        for name, entry in _entries(values, "rewards", file)
    }
    entry = _mapping(values.get("prompts"), "prompts", file)
    prompts = validate(_prompt_settings(entry, file), entry, file, "prompts")
    resolved = {**values, "arms": arms, "rewards": rewards, "prompts": prompts}
    return validate(Settings, resolved, file)


def validate(schema: type[Model], values: Any, file: str, prefix: str = "") -> Model:
    """`values` as `schema`; a `UserError` lists every mistake with its key, value and file."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = [_explain(schema, problem, file, prefix) for problem in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from None


@dataclass(frozen=True)
class _Library:
    """The files that a configuration names, with what it overrides in them."""

    folder: Path
    overrides: dict[str, dict[str, dict[str, Any]]]

    def read(self, kind: str, name: str, file: str, key: str) -> tuple[str, dict[str, Any]]:
        """The file `folder/kind/name.yaml`: its path and its values, overrides merged in.

        `key` of the configuration `file` holds `name`.
        """
        path = self.folder / kind / f"{name}.yaml"
        if not path.is_file():
            known = sorted(found.stem for found in (self.folder / kind).glob("*.yaml"))
            raise UserError(
                f"{file}: {key}: '{name}' is unknown: there is no {path}."
                f"{suggest(name, known)} Known: {', '.join(known)}"
            )
        change = self.overrides.get(kind, {}).get(name)
        values = read_yaml(path)
        if change is None:
            return str(path), values
        return f"{path} (with {file}: overrides.{kind}.{name})", _merge(values, change)


def _library(folder: Path, overrides: Any, file: str) -> _Library:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, entries in _mapping(overrides, "overrides", file).items():
        if kind not in NAMED:
            raise UserError(_unknown_key(file, f"overrides.{kind}", str(kind), list(NAMED)))
        found[kind] = {}
        for name, change in _mapping(entries, f"overrides.{kind}", file).items():
            if not (folder / kind / f"{name}.yaml").is_file():
                known = sorted(entry.stem for entry in (folder / kind).glob("*.yaml"))
                raise UserError(
                    f"{file}: overrides.{kind}: there is no {folder / kind / name}.yaml."
                    f"{suggest(str(name), known)} Known: {', '.join(known)}"
                )
            found[kind][name] = _mapping(change, f"overrides.{kind}.{name}", file)
    return _Library(folder, found)


def _explain(schema: type[BaseModel], problem: Any, file: str, prefix: str) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join([part for part in [prefix] if part] + location)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(file, key, location[-1], _keys_at(schema, location[:-1]))
    if problem["type"] == "missing":
        return f"{file}: {key}: missing; this key is required"
    if problem["type"] == "value_error":  # a rule that joins several keys
        return f"{file}: {key + ': ' if key else ''}{problem['ctx']['error']}"
    return f"{file}: {key}: {problem['input']!r} is not allowed: {problem['msg']}"


def _unknown_key(file: str, key: str, word: str, allowed: list[str]) -> str:
    return (
        f"{file}: {key}: unknown key.{suggest(word, allowed)} Allowed: {', '.join(sorted(allowed))}"
    )


def _keys_at(schema: type[BaseModel], location: list[str]) -> list[str]:
    """The keys that the schema knows at a place inside it."""
    current: Any = schema
    for part in location:
        fields = getattr(current, "model_fields", {})
        if part in fields:
            current = fields[part].annotation
        elif get_origin(current) is dict:  # a mapping of names to entries
            current = get_args(current)[1]
    fields = getattr(current, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _resolve_arms(
    experiments: dict[str, ExperimentSettings],
    sweeps: dict[str, SweepSettings],
    library: _Library,
    file: str,
) -> dict[str, BaseModel]:
    arms: dict[str, BaseModel] = {}
    for name, experiment in experiments.items():
        for arm in experiment.arms:
            arms[arm] = arms.get(arm) or _arm(arm, library, file, f"experiments.{name}.arms")
    for name, sweep in sweeps.items():
        if sweep.experiment not in experiments:
            raise UserError(
                f"{file}: sweeps.{name}.experiment: '{sweep.experiment}' is not an experiment."
                f"{suggest(sweep.experiment, experiments)} Known: {', '.join(experiments)}"
            )
        arms[sweep.arm] = arms.get(sweep.arm) or _arm(
            sweep.arm, library, file, f"sweeps.{name}.arm"
        )
        for value in sweep.values:
            changed = {**arms[sweep.arm].model_dump(mode="json"), sweep.setting: value}
            changed["title"] = f"{changed['title']}, {sweep.setting} = {value:g}"
            arms[sweep.arm_at(value)] = validate(
                type(arms[sweep.arm]), changed, file, f"sweeps.{name}"
            )
    return arms


def _arm(name: str, library: _Library, file: str, key: str) -> BaseModel:
    if name == BASE_ARM:
        raise UserError(
            f"{file}: {key}: '{BASE_ARM}' is the untrained policy: always scored, never listed"
        )
    path, values = library.read("arms", name, file, key)
    return validate(_arm_settings(values, path), values, path)


def _arm_settings(values: dict[str, Any], file: str) -> type[BaseModel]:
    algorithm = _registered(values, "algorithm", registry.ARMS, "registered", file)
    return registry.load_arm_class(algorithm).Settings


def _registered(
    values: dict[str, Any], key: str, known: dict[str, str], what: str, file: str
) -> str:
    """The word at `key`, which must be one of the registry's."""
    word = values.get(key)
    if not isinstance(word, str) or word not in known:
        raise UserError(
            f"{file}: {key}: {word!r} is not {what}.{suggest(str(word), known)}"
            f" Known: {', '.join(sorted(known))}"
        )
    return word


def _resolve_rewards(
    experiments: dict[str, ExperimentSettings], library: _Library, file: str
) -> dict[str, RewardSettings]:
    rewards: dict[str, RewardSettings] = {}
    for experiment, entry in experiments.items():
        named = {"training_reward": [entry.training_reward]}
        named |= {"judges": entry.judges, "diagnostics": entry.diagnostics}
        for key, names in named.items():
            for name in names:
                place = f"experiments.{experiment}.{key}"
                _add_reward(rewards, name, library, file, place)
                if key != "judges":
                    config_checks.check_in_training(name, rewards[name], key, f"{file}: {place}")
    return rewards


def _add_reward(
    rewards: dict[str, RewardSettings], name: str, library: _Library, file: str, key: str
) -> None:
    """Put the reward `name` into `rewards`, and those that it names."""
    path, reward = _reward(name, library, file, key)
    rewards[name] = reward
    for part in reward.part_names():
        config_checks.check_part(part, _reward(part, library, path, "parts")[1], reward, path)
        _add_reward(rewards, part, library, path, "parts")
    for inner in reward.inner_names():
        config_checks.check_inner(inner, _reward(inner, library, path, "reward")[1], reward, path)
        _add_reward(rewards, inner, library, path, "reward")


def _reward(name: str, library: _Library, file: str, key: str) -> tuple[str, RewardSettings]:
    path, values = library.read("rewards", name, file, key)
    return path, validate(_reward_settings(values, path), values, path)


def _reward_settings(values: dict[str, Any], file: str) -> type[RewardSettings]:
    kind = _registered(values, "kind", registry.REWARDS, "a registered reward", file)
    return registry.load_reward_class(kind).Settings


def _resolve_model(name: str, library: _Library, file: str) -> ModelSettings:
    path, values = library.read("models", name, file, "model")
    model = validate(ModelSettings, values, path)
    _registered(values, "kind", registry.MODELS, "a registered model", path)
    return model


def _resolve_prompts(name: str, library: _Library, file: str) -> PromptSettings:
    path, values = library.read("prompts", name, file, "prompts")
    return validate(_prompt_settings(values, path), values, path).pinned(path)


def _prompt_settings(values: dict[str, Any], file: str) -> type[PromptSettings]:
    kind = _registered(values, "kind", registry.PROMPTS, "a registered kind of prompt set", file)
    return registry.load_prompts_class(kind).Settings


def _mapping(value: Any, key: str, file: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{file}: {key}: must be a mapping of names to entries, not {value!r}")
    return value


def _entries(values: dict[str, Any], key: str, file: str) -> list[tuple[str, dict[str, Any]]]:
    """The mappings below a key, by name."""
    entries = _mapping(values[key], key, file)
    return [(name, _mapping(entry, f"{key}.{name}", file)) for name, entry in entries.items()]


def _text(values: dict[str, Any], key: str, file: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise UserError(f"{file}: {key}: must name a file under config/, not {value!r}")
    return value


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _one_line(text: str) -> str:
    return " ".join(text.split())
