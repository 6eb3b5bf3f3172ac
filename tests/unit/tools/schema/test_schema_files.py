"""The schemas of the files that people write, against those files and against `resolve`."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bpgo.config.resolve import WORKFLOW_OPTIONS, resolve
from bpgo.config.yaml_files import SCHEMA_LINE, read_yaml
from bpgo.errors import UserError
from bpgo.storage.files import repository_root
from bpgo.tools.schema.command import schema as command
from bpgo.tools.schema.command import write_all
from bpgo.tools.schema.files import KINDS, files, first_line, schema_text, schemas
from bpgo.tools.schema.page import PAGE, page

ROOT = repository_root()
CONFIG = ROOT / "config"
SHIPPED = sorted(path.relative_to(CONFIG) for path in CONFIG.rglob("*.yaml"))
AGAIN = "make it again: python -m bpgo schema --all"
CHECKERS = {kind: Draft202012Validator(schema) for kind, schema in schemas().items()}
WRONG = [None, -1, 2.5, "x", True, [], {}, ["grpo"], {"unknown": 1}]


def checker_of(file: Path) -> Draft202012Validator:
    """That of the schema which the file's first line names."""
    line = (CONFIG / file).read_text(encoding="utf-8").splitlines()[0]
    return CHECKERS[Path(line.removeprefix(SCHEMA_LINE)).stem]


def ways(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value below `value`."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*way, key)
        if isinstance(inner, (dict, list)):
            yield from ways(inner, (*way, key))


def at(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


def config(**changes: Any) -> dict[str, Any]:
    """The default configuration with other values; dots as double underscores."""
    values = copy.deepcopy(read_yaml(CONFIG / "config.yaml"))
    for key, value in changes.items():
        *path, last = key.split("__")
        at(values, tuple(path))[last] = value
    return values


def places_of(kind: str, values: Any) -> list[str]:
    """Where a schema finds mistakes, as dotted keys."""
    return [".".join(map(str, each.path)) for each in CHECKERS[kind].iter_errors(values)]


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_schemas(kind: str) -> None:
    Draft202012Validator.check_schema(CHECKERS[kind].schema)


def test_committed_files_are_those_that_are_made() -> None:
    made = files()
    there = {path.relative_to(ROOT) for path in (CONFIG / "schema").iterdir()}
    assert there == set(made)
    for path, text in made.items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path}: {AGAIN}"


def test_the_committed_page_is_the_one_that_is_made() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(), f"{PAGE}: {AGAIN}"


@pytest.mark.parametrize("file", SHIPPED, ids=str)
def test_a_shipped_file_names_its_schema_and_follows_it(file: Path) -> None:
    line = (CONFIG / file).read_text(encoding="utf-8").splitlines()[0]
    assert line == first_line(file)
    assert (CONFIG / file.parent / line.removeprefix(SCHEMA_LINE)).is_file()
    found = [
        f"{list(each.path)}: {each.message}"
        for each in checker_of(file).iter_errors(read_yaml(CONFIG / file))
    ]
    assert not found


@pytest.mark.parametrize("file", SHIPPED, ids=str)
def test_an_unknown_key_is_refused_at_every_level(file: Path) -> None:
    values, checker = read_yaml(CONFIG / file), checker_of(file)
    inner = [way for way in ways(values) if isinstance(at(values, way), dict)]
    for way in [(), *inner]:
        changed = copy.deepcopy(values)
        at(changed, way)["no_such_key"] = ["of", "no", "kind"]
        assert not checker.is_valid(changed), f"below {way}"


@pytest.mark.parametrize("seed", range(4))
def test_what_a_schema_refuses_resolve_refuses(seed: int) -> None:
    """A schema is never stricter than the program: 60 configurations with one wrong value each."""
    draw = random.Random(seed)
    names = ["config.yaml", "flux_t2i.yaml", "scenes_worlds.yaml", "tune.yaml", "wan22_i2v.yaml"]
    refused = 0
    for _ in range(60):
        file = CONFIG / draw.choice(names)
        values = read_yaml(file)
        own = [way for way in ways(values) if way[0] not in WORKFLOW_OPTIONS]
        *path, last = draw.choice(own)
        if draw.random() < 0.2:
            del at(values, tuple(path))[last]
        else:
            at(values, tuple(path))[last] = copy.deepcopy(draw.choice(WRONG))
        if CHECKERS["config"].is_valid(values):
            continue
        refused += 1
        own_values = {key: value for key, value in values.items() if key not in WORKFLOW_OPTIONS}
        scale = "smoke" if path[:1] == ["smoke"] else "full"
        try:
            resolve(own_values, CONFIG, str(file), scale)
        except UserError:
            continue
        pytest.fail(f"{file.name}: {path} {last} is refused by the schema alone")
    assert refused > 20


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"rollout__group_size": 1}, "rollout.group_size"),
        ({"rollout__group_size": "12"}, "rollout.group_size"),
        ({"training__learning_rate": 0}, "training.learning_rate"),
        ({"training__learning_rate": "fast"}, "training.learning_rate"),
        ({"training__split": "sample"}, "training.split"),
        ({"training__betas": [0.9]}, "training.betas"),
        ({"experiments__clear__seeds": [-1]}, "experiments.clear.seeds.0"),
        ({"experiments__clear__seeds": []}, "experiments.clear.seeds"),
        ({"experiments__clear__judges": "oracle"}, "experiments.clear.judges"),
        ({"experiments__Clear World": {}}, "experiments"),
        ({"root": "elsewhere"}, "root"),
        ({"scale": "smoke"}, ""),
    ],
)
def test_a_wrong_value_is_found_at_its_key(change: dict[str, Any], place: str) -> None:
    assert place in places_of("config", config(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"training__learning_rate": "1e-4"},  # as YAML 1.1 reads 1e-4
        {"experiments__clear__arms": {"all_but": ["gdpo"]}},
        {"experiments__clear__judges": ["a_file_that_comes_later"]},
        {"overrides__trust": {"bpgo": {"ras": False}}},  # as YAML 1.1 reads off
        {"overrides__arms": {"vipo": {"trust": {"alpha": 0.7}, "allocation": {"components": 2}}}},
        {"overrides__arms": {"bpgo": {"trust": "gardo"}}},
        {"features": None},
        {"root": "results/mine"},
    ],
)
def test_what_people_may_write(change: dict[str, Any]) -> None:
    assert not places_of("config", config(**change))


@pytest.mark.parametrize(
    ("kind", "values", "right"),
    [
        ("overlay", {"rollout": {"steps": 4}}, True),
        ("overlay", {"experiments": {"clear": None}}, True),
        ("overlay", {"experiments": {"replace": True, "mine": {"arms": ["grpo"]}}}, True),
        ("overlay", {"rollout": {"step": 4}}, False),
        ("overlay", {"rollout": {"steps": None}}, False),
        ("overlay", {"smoke": {"smoke": {}}}, False),
        ("arms", {"base": "grpo", "title": "Mine"}, True),
        ("arms", {"base": "grpo", "title": "Mine", "trained_fraction": None}, True),
        ("arms", {"base": "grpo", "title": "Mine", "trained_fractions": 1.0}, False),
        ("arms", {"algorithm": "grpo", "title": "Mine"}, False),  # without its other keys
        ("arms", {"title": "Mine"}, False),
        ("trust", {"rule": "anti", "of": {"base": "bpgo", "alpha": 0.2}}, True),
        ("trust", {"rule": "anti"}, False),
        ("trust", {"rule": "anti", "of": {"rule": "bpgo", "aplha": 0.2}}, False),
        ("rewards", {"kind": "weighted_sum", "title": "Sum", "parts": {"oracle": 1}}, True),
        ("rewards", {"kind": "weighted_sum", "title": "Sum", "parts": {}}, False),
        ("rewards", {"kind": "weighted_som", "title": "Sum", "parts": {"oracle": 1}}, False),
        ("instrument", {"experiment": "clear"}, False),
    ],
)
def test_other_kinds_of_files(kind: str, values: dict[str, Any], right: bool) -> None:
    assert CHECKERS[kind].is_valid(values) is right


def test_names_of_files_complete() -> None:
    names = CHECKERS["config"].schema["$defs"]["arms_name"]["anyOf"][0]["enum"]
    assert names == sorted(path.stem for path in (CONFIG / "arms").glob("*.yaml"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_explained(kind: str) -> None:
    def unexplained(node: Any, way: str) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.get("properties", {}).items():
                named = "additionalProperties" in node and node["additionalProperties"] is not False
                if isinstance(value, dict) and "description" not in value and not named:
                    yield f"{way}.{key}"
            for key, value in node.items():
                if key not in ("if", "else"):
                    yield from unexplained(value, f"{way}.{key}")
        elif isinstance(node, list):
            for value in node:
                yield from unexplained(value, way)

    assert not list(unexplained(CHECKERS[kind].schema, kind))


def test_all_files_are_written_anew(tmp_path: Path) -> None:
    for name in ("arms", "features", "models", "prompts", "rewards", "trust"):
        (tmp_path / "config" / name).mkdir(parents=True)
    (tmp_path / "config" / "arms" / "mine.yaml").write_text("base: grpo\n")
    made = write_all(tmp_path)
    assert {path.name for path in made} == {*(f"{kind}.json" for kind in KINDS), PAGE.name}
    assert all((tmp_path / path).is_file() for path in made)
    assert '"mine"' in (tmp_path / "config" / "schema" / "config.json").read_text()


def test_the_command_prints_writes_or_refuses(tmp_path: Path) -> None:
    assert command(None, None, False) == schema_text("config")
    assert command("arms", tmp_path / "arms.json", False) == ""
    assert (tmp_path / "arms.json").read_text(encoding="utf-8") == schema_text("arms")
    with pytest.raises(UserError, match=r"--of: 'arm' is unknown. Did you mean 'arms'\? Allowed"):
        command("arm", None, False)
    with pytest.raises(UserError, match="--all: is not allowed with --of or --output"):
        command("arms", None, True)
