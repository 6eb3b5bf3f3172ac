"""Arms and their trust rules: from files and overrides to checked settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from bpgo import registry
from bpgo.config.library import Library, mapping, merge, registered, validate
from bpgo.config.messages import join
from bpgo.config.published import FeatureSettings
from bpgo.config.published_files import check_places
from bpgo.config.settings import BASE_ARM, ExperimentSettings
from bpgo.config.variants import SweepSettings, set_at, value_text
from bpgo.errors import UserError, shown, suggest


def resolve_arms(
    experiments: dict[str, ExperimentSettings],
    sweeps: dict[str, SweepSettings],
    files: Library,
    file: str,
) -> dict[str, BaseModel]:
    """The arms of a configuration, those that sweeps make included."""
    arms: dict[str, BaseModel] = {}
    made: dict[str, tuple[str, Any]] = {}  # by name: the setting and the value of a sweep
    for name, experiment in experiments.items():
        for arm in experiment.arms:
            arms[arm] = arms.get(arm) or named_arm(arm, files, file, f"experiments.{name}.arms")
    for name, sweep in sweeps.items():
        if sweep.experiment not in experiments:
            raise UserError(
                f"{file}: sweeps.{name}.experiment: '{sweep.experiment}' is not an experiment."
                f"{suggest(sweep.experiment, experiments)} Known: {', '.join(experiments)}"
            )
        arms[sweep.arm] = arms.get(sweep.arm) or named_arm(
            sweep.arm, files, file, f"sweeps.{name}.arm"
        )
        for value in sweep.values:
            at, changed = f"sweeps.{name}", arms[sweep.arm].model_dump(mode="json")
            if sweep.block is None:
                place = f"{file}: {at}.setting: arm '{sweep.arm}'"
                changed = with_value(changed, sweep.setting, value, place)
            changed["title"] = f"{changed['title']}, {sweep.word} = {value_text(value)}"
            found, arm = arm_settings(changed, file, at), sweep.arm_at(value)
            maker = made.setdefault(arm, (sweep.setting, value))
            if arms.setdefault(arm, found) != found or maker != (sweep.setting, value):
                raise UserError(f"{file}: {at}: arm '{arm}' is there already, with other values")
    return arms


def with_value(values: dict[str, Any], dotted: str, value: Any, place: str) -> dict[str, Any]:
    """`values` with `value` where the dotted key leads; `place` begins the message."""
    try:
        return set_at(values, dotted, value)
    except KeyError as error:
        part = error.args[0]
        raise UserError(f"{place} has no mapping '{part}', so no '{dotted}'") from None


def named_arm(name: str, files: Library, file: str, key: str) -> BaseModel:
    """The settings of an arm's file, which `key` of `file` names: with rule and features, checked.

    Raises:
        UserError: for the untrained policy's name, an unknown one, or a mistake in a file.
    """
    if name == BASE_ARM:
        raise UserError(
            f"{file}: {key}: '{BASE_ARM}' is the untrained policy: always scored, never listed"
        )
    if any(files.overrides.get(kind) for kind in ("arms", "features", "trust")):
        plain = replace(files, overrides={}, used=set(), bases={})  # each file is right by itself
        named_arm(name, plain, file, key)
    path, values = files.read("arms", name, file, key)
    base = files.bases.get(("arms", name))
    if base is not None and files.overrides.get("arms"):  # so is, as changed, what it is built on
        named_arm(base, files, path, "base")
    if values.get("trust") is not None:
        values = {**values, "trust": rule_values(values["trust"], files, path, "trust")}
    if isinstance(values.get("features"), str):
        label, found = files.read("features", values["features"], path, "features")
        chosen = validate(feature_settings(found, label), found, label)
        check_places(chosen, label)
        values = {**values, "features": chosen.model_dump(mode="json")}
    return arm_settings(values, path)


def arm_settings(values: dict[str, Any], file: str, prefix: str = "") -> BaseModel:
    """An arm with its whole trust rule, checked; the rule first, so that messages name its keys."""
    algorithm = registered(values, "algorithm", registry.ARMS, "registered", file, prefix)
    if values.get("trust") is not None:
        rule = rule_settings(values["trust"], file, join(prefix, "trust"))
        values = {**values, "trust": rule}
    schema: type[BaseModel] = registry.load_arm_class(algorithm).Settings
    return validate(schema, values, file, prefix)


def rule_settings(values: Any, file: str, prefix: str) -> BaseModel:
    """A trust rule, and the rule that it is made of, checked."""
    values = mapping(values, prefix, file)
    rule = registered(values, "rule", registry.TRUST, "a registered trust rule", file, prefix)
    if "of" in values:
        values = {**values, "of": rule_settings(values["of"], file, join(prefix, "of"))}
    schema: type[BaseModel] = registry.load_trust_class(rule).Settings
    return validate(schema, values, file, prefix)


def rule_values(
    value: Any, files: Library, file: str, key: str, inside: tuple[str, ...] = ()
) -> dict[str, Any]:
    """All values of a trust rule: a name of the folder `trust`, or a mapping with `base` or `rule`.

    A named rule must be right by itself, before what `file` changes in it.
    """
    change = {"base": value} if isinstance(value, str) else dict(mapping(value, key, file))
    name = change.pop("base", None)
    if name is None:
        return _with_inner(change, files, file, key, inside)
    if not isinstance(name, str):
        raise UserError(f"{file}: {join(key, 'base')}: must name a trust rule, not {shown(name)}")
    path, values = files.read("trust", name, file, key, inside)
    values = _with_inner(values, files, path, "", (*inside, name))
    rule_settings(values, path, "")
    return _with_inner(merge(values, change), files, file, key, inside)


def _with_inner(
    values: dict[str, Any], files: Library, file: str, key: str, inside: tuple[str, ...]
) -> dict[str, Any]:
    if values.get("of") is None:
        return values
    return {**values, "of": rule_values(values["of"], files, file, join(key, "of"), inside)}


def feature_settings(values: dict[str, Any], file: str, prefix: str = "") -> type[FeatureSettings]:
    """The schema of the features that `values` are of."""
    known, what = registry.FEATURES, "a registered kind of features"
    kind = registered(values, "kind", known, what, file, prefix)
    return registry.load_features_class(kind).Settings
