"""A search of training settings on tuning seeds: `config/instrument.yaml`, checked before any work.

Candidates are overrides of one configuration. Two anchors alone are trained with each: GRPO on the
truth and GRPO on rewards that say nothing. No arm that is compared takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import Field

from bpgo.config.digests import NO_RESULT, digest_of
from bpgo.config.fields import Count, Name, Seed, Strict
from bpgo.config.library import check_says, leaves, mapping, merge, validate
from bpgo.config.messages import unknown_key
from bpgo.config.overlays import Files, files_of, read_files
from bpgo.config.places import located
from bpgo.config.resolve import WORKFLOW_OPTIONS, load, resolve
from bpgo.config.runs import Run
from bpgo.config.settings import Settings
from bpgo.config.yaml_files import read_yaml
from bpgo.errors import UserError, suggest

SEARCH = "instrument.yaml"  # its name beside configurations
GOOD, IDLE = "oracle_reward", "random_reward"  # arms on the truth, and on nothing
ANCHORS = (GOOD, IDLE)
CHANGED = ("rollout", "training", "overrides")  # what a candidate may have
OWN = ("iterations", "snapshot_every", "checkpoint_every")  # of `training`; the search sets them


class SearchSettings(Strict):
    """What a search file holds."""

    experiment: Name  # of the configuration; its training reward and prompts
    seeds: Annotated[list[Seed], Field(min_length=1)]  # tuning seeds, which no reported run has
    iterations: Count  # of each training
    evaluate_every: Count  # iterations between judged policies
    prompts: Count  # evaluation prompts, the first ones
    # Gradients of the base policy, for signal-to-noise.
    batches: Annotated[int, Field(ge=3)]
    # By name: what of `rollout`, `training` and `overrides` differs.
    candidates: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True)
class Search:
    """A checked search: its sizes, and the settings of each candidate by name."""

    sizes: SearchSettings
    settings: dict[str, Settings]

    def run(self, anchor: str, seed: int) -> Run:
        """A training of the search."""
        return Run(self.sizes.experiment, anchor, seed)

    @property
    def truth(self) -> str:
        """The name of the reward that judges: the one that the anchor `oracle_reward` trains on."""
        rule: Any = next(iter(self.settings.values())).arms[GOOD]
        return str(rule.trust.reward)

    def digest(self, candidate: str, seed: int) -> str:
        """Of everything that what is measured of a candidate with one seed depends on."""
        settings, sizes = self.settings[candidate], self.sizes
        runs = [settings.run_digest(self.run(anchor, seed)) for anchor in ANCHORS]
        counts = [sizes.iterations, sizes.evaluate_every, sizes.prompts, sizes.batches]
        judged = [settings.model, settings.evaluation, settings.judging_guidance]
        return digest_of(runs, counts, judged, settings.prompts.decides("evaluation"))


def load_search(file: Path, configfile: Files, given: Mapping[str, Any] | None = None) -> Search:
    """Read a search and lay each candidate over a configuration, as its own file would be.

    `given` is what Snakemake's `--config` says beside the configuration's files.

    Raises:
        UserError: for unknown keys; a candidate whose settings are refused, that has one which
            cannot act or the settings of another one; a seed that the configuration reports; sizes
            that do not fit. Named are the file, the line and the key.
    """
    try:
        return _checked(file, configfile, given)
    except UserError as error:
        raise located(error, file, "full") from None


def _checked(file: Path, configfile: Files, given: Mapping[str, Any] | None) -> Search:
    """The search, whose messages name no lines of `file` yet."""
    place, values, first = str(file), read_files(configfile, given), files_of(configfile)[0]
    sizes = validate(SearchSettings, read_yaml(file), place)
    configured = load(configfile, given=given)
    _check_sizes(sizes, configured, place)
    for option in (*WORKFLOW_OPTIONS, "smoke", "sweeps"):
        values.pop(option, None)
    acting = _acting(values, Path(first).parent)
    found: dict[str, Settings] = {}
    for name, change in sizes.candidates.items():
        key = f"{place}: candidates.{name}"
        _check_acts(change, acting, place, f"candidates.{name}")
        check_says(values, change, place, f"candidates.{name}")
        laid = _laid(values, change, sizes, key)
        try:
            found[name] = resolve(laid, Path(first).parent, str(first), whole=False)
        except UserError as error:
            raise UserError(f"{key}: over {error}") from None
    search = Search(sizes, found)
    _check_told_apart(search, place)
    return search


def _laid(
    values: dict[str, Any], change: dict[str, Any], sizes: SearchSettings, key: str
) -> dict[str, Any]:
    """The configuration with a candidate's changes and the search's own sizes and arms."""
    laid = merge(values, change)
    entry = dict(laid["experiments"][sizes.experiment])
    for unused in ("primary", "paper"):
        entry.pop(unused, None)
    entry |= {"arms": list(ANCHORS), "seeds": sizes.seeds}
    judged = {**laid["evaluation"], "prompts": sizes.prompts}
    judged |= {"curve_prompts": sizes.prompts, "divergence_prompts": 0, "diversity_prompts": 0}
    own = dict.fromkeys(OWN, sizes.iterations)
    laid["training"] = mapping(laid["training"], "training", key) | own
    laid["analysis"] = {**laid["analysis"], "final_stages": 1}
    return {**laid, "experiments": {sizes.experiment: entry}, "evaluation": judged}


def _check_sizes(sizes: SearchSettings, configured: Settings, file: str) -> None:
    known = configured.experiments
    if sizes.experiment not in known:
        raise UserError(
            f"{file}: experiment: '{sizes.experiment}' is unknown."
            f"{suggest(sizes.experiment, known)} Known: {', '.join(known)}"
        )
    reward = configured.rewards[known[sizes.experiment].training_reward]
    if reward.needs_calibration:
        raise UserError(
            f"{file}: experiment: '{sizes.experiment}' trains on a sum of standardized rewards,"
            " which needs a calibration for each candidate; name one that does not"
        )
    for seed in sizes.seeds:
        if any(seed in entry.seeds for entry in known.values()):
            reported = sorted({seed for entry in known.values() for seed in entry.seeds})
            raise UserError(
                f"{file}: seeds: {seed} is a seed that the configuration reports; settings that"
                " were chosen by it would be judged by it too. Take others than"
                f" {', '.join(map(str, reported))}"
            )
    if len(set(sizes.seeds)) < len(sizes.seeds):
        raise UserError(f"{file}: seeds: {sizes.seeds} holds a seed twice")
    if sizes.iterations % sizes.evaluate_every:
        raise UserError(
            f"{file}: evaluate_every: {sizes.evaluate_every} does not divide iterations, which is"
            f" {sizes.iterations}"
        )


def _acting(values: dict[str, Any], folder: Path) -> dict[str, list[str]]:
    """The named files that decide how the anchors train, by kind, with those they are built on."""
    arms = _with_bases(folder / "arms", list(ANCHORS))
    return {"arms": arms, "models": [values["model"]], "prompts": [values["prompts"]]}


def _with_bases(folder: Path, names: list[str]) -> list[str]:
    """Files of a folder and, by `base`, those that they are built on."""
    found: list[str] = []
    for name in names:
        at: Any = name
        while isinstance(at, str) and at not in found:
            found.append(at)
            at = read_yaml(folder / f"{at}.yaml").get("base")
    return found


def _check_acts(change: dict[str, Any], acting: dict[str, list[str]], file: str, key: str) -> None:
    """Each value of a candidate is one that the training of the anchors depends on."""
    changed = list(leaves(change))
    if not changed:
        raise UserError(f"{file}: {key}: changes nothing; give it a value of {_words(CHANGED)}")
    for path in changed:
        at = ".".join((key, *path))
        if path[0] not in CHANGED:
            raise UserError(unknown_key(file, f"{key}.{path[0]}", path[0], list(CHANGED)))
        if path[0] == "training" and path[-1] in OWN:
            _idle(file, at, "the search sets it, by iterations")
        if path[-1] in NO_RESULT:
            _idle(file, at, "no result depends on it")
        if path[0] == "overrides" and len(path) > 2:
            kind, name = path[1:3]
            if kind in ("rewards", "trust") or "trust" in path:
                raise UserError(
                    f"{file}: {at}: a candidate changes how the anchors train, not their rewards"
                )
            if name not in acting.get(kind, ()):
                known = acting.get(kind)
                read = f"of {kind} it reads {_words(known)}" if known else f"it reads no {kind}"
                _idle(file, at, f"the anchors' training does not depend on '{name}': {read}")


def _idle(file: str, key: str, why: str) -> NoReturn:
    raise UserError(f"{file}: {key}: changes nothing that can act: {why}")


def _check_told_apart(search: Search, file: str) -> None:
    """No two candidates are the same settings."""
    seen: dict[str, str] = {}
    for name in search.settings:
        digest = search.digest(name, search.sizes.seeds[0])
        if digest in seen:
            raise UserError(
                f"{file}: candidates.{name}: has the same settings as '{seen[digest]}'; it would"
                " measure nothing else"
            )
        seen[digest] = name


def _words(names: Iterable[str]) -> str:
    return ", ".join(names)
