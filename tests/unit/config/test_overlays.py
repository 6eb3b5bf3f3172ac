"""Files laid over each other: what each word does, and where messages say that a key stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bpgo.config.overlays import lay_over, save_given
from bpgo.config.resolve import default_configfile, load, load_rules
from bpgo.config.runs import Run
from bpgo.config.search import load_search
from bpgo.errors import UserError

FILE = default_configfile()
FOLDER = FILE.parent
LIST = {"values": [2]}
BASE: dict[str, Any] = {
    "experiments": {"one": {"arms": ["a", "b"], "seeds": [1]}, "two": {"arms": ["a"]}},
    "sweeps": {"alpha": {"values": [1, 2]}},
    "features": "scenes",
    "overrides": {"arms": {"a": {"trust": {"k": 1}}}},
    "smoke": {"experiments": {"one": {"seeds": [2]}, "two": {"seeds": [3]}}, "sweeps": {"x": 1}},
}


def overlay(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, scale: str = "full", **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        load([FILE, overlay(folder, text)], scale, given)
    return str(caught.value)


def test_mappings_merge_and_lists_are_replaced() -> None:
    found = lay_over(BASE, {"experiments": {"one": {"arms": ["c"]}}}, "mine.yaml")
    assert found["experiments"]["one"] == {"arms": ["c"], "seeds": [1]}
    assert found["experiments"]["two"] == BASE["experiments"]["two"]
    assert {key: found[key] for key in BASE if key != "experiments"} == {
        key: BASE[key] for key in BASE if key != "experiments"
    }


def test_null_takes_a_mapping_away_and_from_smoke_too() -> None:
    found = lay_over(BASE, {"experiments": {"two": None}, "sweeps": None}, "mine.yaml")
    assert list(found["experiments"]) == ["one"]
    assert "sweeps" not in found
    assert found["smoke"] == {"experiments": {"one": {"seeds": [2]}}}
    assert "sweeps" in BASE  # what was given is left alone


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"features": None}, {"features": None}),
        ({"experiments": {"three": None}}, {"experiments": {"three": None}}),
        (  # a rule of the arm's file is meant, not the override before
            {"overrides": {"arms": {"a": {"trust": None}}}},
            {"overrides": {"arms": {"a": {"trust": None}}}},
        ),
    ],
)
def test_null_is_the_value_of_what_is_no_mapping(
    change: dict[str, Any], wanted: dict[str, Any]
) -> None:
    found = lay_over(BASE, change, "mine.yaml")
    for key, value in wanted.items():
        assert found[key] == (BASE[key] | value if key == "experiments" else value)


def test_null_takes_the_overrides_of_a_file_away() -> None:
    assert lay_over(BASE, {"overrides": {"arms": {"a": None}}}, "")["overrides"] == {"arms": {}}


def test_a_block_is_replaced() -> None:
    change = {"experiments": {"replace": True, "two": {"arms": ["z"]}}}
    found = lay_over(BASE, change, "mine.yaml")
    assert found["experiments"] == {"two": {"arms": ["z"]}}
    assert found["smoke"] == {"sweeps": {"x": 1}}
    change = {"experiments": {"one": {"replace": True, "arms": ["z"]}}}
    assert lay_over(BASE, change, "mine.yaml")["experiments"]["one"] == {"arms": ["z"]}


def test_smoke_takes_away_only_from_smoke() -> None:
    found = lay_over(BASE, {"smoke": {"experiments": {"two": None}}}, "mine.yaml")
    assert found["experiments"] == BASE["experiments"]
    smoke = lay_over(found, found["smoke"], "mine.yaml")
    assert smoke["experiments"] == {"one": {"arms": ["a", "b"], "seeds": [2]}}
    change = {"smoke": {"experiments": {"replace": True, "two": {"arms": ["z"]}}}}
    found = lay_over(BASE, change, "mine.yaml")
    smoke = lay_over(found, found["smoke"], "mine.yaml")
    assert smoke["experiments"] == {"two": {"arms": ["z"]}}
    assert lay_over(BASE, {"smoke": {"replace": True}}, "")["smoke"] == {}


def test_smoke_compares_what_a_further_file_lists() -> None:
    smaller = {"experiments": {"one": {"arms": ["b"], "seeds": [2]}}, "sweeps": {"alpha": LIST}}
    base = {**BASE, "smoke": smaller}
    change = {"experiments": {"one": {"arms": ["c", "d"], "seeds": [4, 5]}}}
    found = lay_over(base, change, "mine.yaml")
    assert found["experiments"]["one"] == {"arms": ["c", "d"], "seeds": [4, 5]}
    assert found["smoke"] == {"experiments": {"one": {"seeds": [2]}}, "sweeps": {"alpha": LIST}}
    change["smoke"] = {"experiments": {"one": {"arms": ["d"]}}}
    found = lay_over(base, change, "mine.yaml")
    assert found["smoke"]["experiments"] == {"one": {"arms": ["d"], "seeds": [2]}}
    found = lay_over(base, {"sweeps": {"alpha": {"values": [3]}}}, "mine.yaml")
    assert found["smoke"] == {"experiments": smaller["experiments"]}


def test_smoke_runs_the_arms_of_an_overlay(tmp_path: Path) -> None:
    mine = overlay(
        tmp_path,
        "experiments:\n  ambiguous:\n    arms: [dr_grpo, vipo]\n  clear: null\nsweeps: null\n",
    )
    runs = load([FILE, mine], "smoke").runs()
    assert runs == [Run("ambiguous", "dr_grpo", 1), Run("ambiguous", "vipo", 1)]
    mine.write_text("sweeps: {alpha: {values: [0.2, 0.3]}}\n")
    assert list(load([FILE, mine], "smoke").sweeps["alpha"].values) == [0.2, 0.3]
    mine.write_text(
        "experiments:\n  hpsv2: null\n  mine: {training_reward: hpsv21, judges: [image_reward],"
        " title: x, arms: [grpo], seeds: [1]}\n"
    )
    assert load([FOLDER / "flux_t2i.yaml", mine], "smoke").runs() == [Run("mine", "grpo", 1)]


@pytest.mark.parametrize("scale", ["full", "smoke"])
def test_a_part_is_run(scale: str) -> None:
    runs = load([FILE, FOLDER / "overlays" / "part.yaml"], scale).runs()
    assert {(run.experiment, run.seed) for run in runs} == {("ambiguous", 1)}
    if scale == "full":
        assert runs == [Run("ambiguous", "grpo", 1), Run("ambiguous", "bpgo", 1)]


def test_the_last_file_counts_and_the_command_line_more(tmp_path: Path) -> None:
    files = [FILE, *(tmp_path / name for name in ("one.yaml", "two.yaml"))]
    for iterations, file in zip((40, 60), files[1:], strict=True):
        file.write_text(f"training:\n  iterations: {iterations}\nroot: results/mine\n")
    assert load(files).training.iterations == 60
    given = {"training": {"iterations": 80}, "root": "results/others"}
    settings = load(files, given=given)
    as_text = {"training": {"iterations": "80"}, "evaluation": {"guidance_scale": "null"}}
    assert load(files, given=as_text).training == settings.training  # Snakemake's reading
    assert (settings.training.iterations, settings.training.snapshot_every) == (80, 20)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\ntraining:\n  iteratoins: 3\n", "{mine}, line 3: training.iteratoins: unknown key."),
        ("a: 1\n", "{mine}, line 1: a: unknown key."),
        ("training: 3\n", "{mine}, line 1: training: 3 is not allowed"),
        ("training: {iterations: 3}\n", "{base}, line {snapshot}: training.snapshot_every: 20 is"),
        ("training:\n  replace: true\n", "{mine}, line 1: training.iterations: missing"),
        ("training: null\n", "{mine}, line 1: training: missing; this key is required"),
        (
            "experiments:\n  ambiguous:\n    seeds: [1, -2]\n",
            "{mine}, line 3: experiments.ambiguous.seeds.1: -2 is not allowed",
        ),
        ("experiments: {claer: null}\n", "{mine}, line 1: experiments.claer: None is not allowed"),
        (
            "experiments:\n  ambiguous: null\n",
            "{base}, line {alpha}: sweeps.alpha.experiment: 'ambiguous' is not an experiment",
        ),
        (
            "training:\n  replace: yes please\n",
            "{mine}, line 2: training.replace: 'yes please' is not allowed: it must be true",
        ),
        (
            "trainig:\n  replace: true\n",
            "{mine}, line 2: trainig.replace: there is no mapping 'trainig' in the files before",
        ),
        (
            "overrides:\n  arms:\n    grpo:\n      noise_level: -1\n",
            "{folder}/arms/grpo.yaml (with {mine}, line 4: overrides.arms.grpo): noise_level: -1",
        ),
        ("overrides:\n  amrs: {}\n", "{mine}, line 2: overrides.amrs: unknown key."),
        ("\nsweeps: {}\n", "{mine}, line 2: sweeps: is empty, which changes nothing: leave"),
        (
            "smoke:\n  sweeps: {}\n",
            "{mine}, line 2: smoke.sweeps: is empty, which changes nothing: leave it out, or",
        ),
        ("\nroot: -1\n", "{mine}, line 2: root: '-1' is not allowed: it must be results or a"),
        ("warm: 3\n", "{mine}, line 1: warm: '3' is not allowed: it must be true or false"),
        ("pretrain_seed: -1\n", "{mine}, line 1: pretrain_seed: '-1' is not allowed: it must be"),
        ("smoke:\n  banana: 1\n", "{mine}, line 2: smoke.banana: unknown key."),
        ("'': 1\n", "{mine}, line 1: '': unknown key."),
        (  # of what an arm is built on, where that arm itself is not run
            "overrides: {arms: {grpo: {banana: 1}}}\n"
            "experiments: {ambiguous: {arms: [bpgo]}, clear: null}\nsweeps: null\n",
            "{folder}/arms/grpo.yaml (with {mine}, line 1: overrides.arms.grpo): banana: unknown",
        ),
        ("model: scened\n", "{mine}, line 1: model: 'scened' is unknown"),
        ("title: [\n", "{mine}: cannot be read as YAML"),
    ],
)
def test_messages_name_the_file_and_the_line_of_the_key(
    text: str, wanted: str, tmp_path: Path
) -> None:
    lines = FILE.read_text().splitlines()
    places = {
        "snapshot": 1 + next(i for i, line in enumerate(lines) if "snapshot_every: 20" in line),
        "alpha": 1 + next(i for i, line in enumerate(lines) if line == "    experiment: ambiguous"),
    }
    message = refusal(tmp_path, text)
    assert message.startswith(
        wanted.format(mine=tmp_path / "mine.yaml", base=FILE, folder=FOLDER, **places)
    ), message


def test_the_line_in_smoke_and_the_command_line(tmp_path: Path) -> None:
    text = "training:\n  iterations: 9\nsmoke:\n  training:\n    iterations: 0\n"
    message = refusal(tmp_path, text, "smoke")
    assert message.startswith(f"{tmp_path / 'mine.yaml'}, line 5: training.iterations: 0 is not")
    message = refusal(tmp_path, "title: x\n", training={"iterations": 0})
    assert message.startswith("--config: training.iterations: 0 is not allowed")
    message = refusal(tmp_path, "title: x\n", **{"training.iterations": 5})
    assert message.startswith("--config: training.iterations: unknown key")


def test_a_named_file_has_lines_too(folder: Path) -> None:
    file = folder / "rewards" / "oracle.yaml"
    file.write_text("# Mine.\n" + file.read_text() + "banana: 1\n")
    line = len(file.read_text().splitlines())
    with pytest.raises(UserError) as caught:
        load(folder / "config.yaml")
    assert str(caught.value).startswith(f"{file}, line {line}: banana: unknown key.")


def test_rules_and_the_search_follow_overlays(tmp_path: Path) -> None:
    mine = overlay(
        tmp_path, "overrides:\n  trust:\n    bpgo: {k: 2.5}\ntraining: {weight_decay: 0.5}\n"
    )
    assert load_rules([FILE, mine])["bpgo"].k == 2.5
    assert load_rules(FILE)["bpgo"].k != 2.5
    found = load_search(FOLDER / "instrument.yaml", [FILE, mine]).settings.values()
    assert {settings.training.weight_decay for settings in found} == {0.5}


def test_rules_and_the_search_follow_the_command_line(tmp_path: Path) -> None:
    given = {"overrides": {"trust": {"bpgo": {"k": "2.5"}}}, "training": {"weight_decay": "0.5"}}
    written = tmp_path / "given.yaml"
    save_given(given, written)
    for rules in (load_rules(FILE, given=given), load_rules([FILE, written])):
        assert rules["bpgo"].k == 2.5
    search = FOLDER / "instrument.yaml"
    searches = [load_search(search, FILE, given), load_search(search, [FILE, written])]
    name = next(iter(searches[0].settings))
    planned, read, plain = (
        each.digest(name, 100) for each in (*searches, load_search(search, FILE))
    )
    assert planned == read != plain


def test_what_an_overlay_leaves_out_may_be_overridden_before_it(tmp_path: Path) -> None:
    """SD3.5's file changes the arm flow_grpo, which a part need not run."""
    base = FOLDER / "sd35_t2i.yaml"
    part = "experiments: {pickscore: {arms: [grpo, bpgo], seeds: [1]}}\n"
    for scale in ("full", "smoke"):
        assert load([base, overlay(tmp_path, part)], scale).runs()
    with pytest.raises(UserError) as caught:  # but what it says itself must act
        load([base, overlay(tmp_path, part + "overrides: {arms: {flow_grpo: {clip_range: 1}}}\n")])
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'mine.yaml'}, line 2: overrides.arms.flow_grpo"), (
        message
    )
    assert "cannot act" in message
    taken = part + "overrides: {arms: {flow_grpo: null}}\n"
    assert load([base, overlay(tmp_path, taken)]).arms.keys() == {"grpo", "bpgo"}
