"""A mistake in the configuration ends the workflow before any job, with one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import REPOSITORY, Workspace, run_forked

Values = dict[str, Any]


def unknown_key(values: Values) -> None:
    values["training"]["iterationz"] = 3


def misspelt_arm(values: Values) -> None:
    values["experiments"]["clear"]["arms"] = ["grpo", "bgpo"]


def wrong_type(values: Values) -> None:
    values["training"]["iterations"] = "many"


def out_of_range(values: Values) -> None:
    values["analysis"]["confidence"] = 1.5


def bad_name(values: Values) -> None:
    values["experiments"]["Clear; rm -rf"] = values["experiments"].pop("clear")


def bad_smoke_section(values: Values) -> None:
    values["smoke"]["evaluation"]["prompt"] = 3


MISTAKES: list[tuple[Callable[[Values], None], list[str]]] = [
    (unknown_key, ["training.iterationz", "Did you mean 'iterations'"]),
    (misspelt_arm, ["experiments.clear.arms", "'bgpo'", "Known: anti_trust, awm"]),
    (wrong_type, ["training.iterations", "'many'"]),
    (out_of_range, ["analysis.confidence", "1.5", "less than 1"]),
    (bad_name, ["experiments", "Clear; rm -rf"]),
    (bad_smoke_section, ["evaluation.prompt", "Did you mean 'prompts'"]),
]


@pytest.mark.parametrize(("change", "expected"), MISTAKES, ids=lambda v: getattr(v, "__name__", ""))
def test_mistake_in_the_configuration(
    workspace: Workspace, change: Callable[[Values], None], expected: list[str]
) -> None:
    workspace.edit(change)
    outcome = workspace.snakemake()
    assert outcome.code != 0
    assert_one_error(outcome.text, [str(workspace.configfile), *expected])
    assert not workspace.path("results").exists()


@pytest.mark.parametrize(
    ("file", "key", "meant"), [("arms/bpgo", "kernle", "kernel"), ("trust/bpgo", "alhpa", "alpha")]
)
def test_mistake_in_a_named_file_names_the_file(
    workspace: Workspace, file: str, key: str, meant: str
) -> None:
    workspace.edit(lambda values: values.update({key: 0.5}), file)
    outcome = workspace.snakemake()
    assert outcome.code != 0
    assert_one_error(outcome.text, [f"{file}.yaml", key, f"Did you mean '{meant}'"])


def test_broken_yaml(workspace: Workspace) -> None:
    (workspace.folder / "config" / "arms" / "bpgo.yaml").write_text("alpha: [0.5\n")
    outcome = workspace.snakemake()
    assert outcome.code != 0
    assert_one_error(outcome.text, ["arms/bpgo.yaml", "cannot be read as YAML"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("root=../elsewhere", "error: root: '../elsewhere' is not allowed"),
        ("root=/tmp/elsewhere", "error: root: '/tmp/elsewhere' is not allowed"),
        ("root=results/reference", "error: root: 'results/reference' is not allowed"),
        ("allow_mixed=maybe", "error: allow_mixed: 'maybe' is not allowed"),
        ("pretrain_seed=-1", "error: pretrain_seed: '-1' is not allowed: it must be from 0 to"),
        ("pretrain_seed=2147483648", "error: pretrain_seed: '2147483648' is not allowed"),
        ("warm=1", "error: warm: '1' is not allowed: it must be true or false"),
    ],
)
def test_mistake_in_an_option(workspace: Workspace, option: str, message: str) -> None:
    outcome = workspace.snakemake("--config", option)
    assert outcome.code != 0
    assert message in outcome.text
    assert "Traceback" not in outcome.text


def test_one_mistake_leaves_existing_results_alone(workspace: Workspace) -> None:
    kept = workspace.path("results/scores/kept.parquet")
    kept.parent.mkdir(parents=True)
    kept.write_text("kept")
    workspace.edit(unknown_key)
    assert workspace.snakemake().code != 0
    assert kept.read_text() == "kept"


def test_a_clone_whose_path_snakemake_takes_for_wildcards(tmp_path: Path) -> None:
    place = tmp_path / "a{root}{0}"
    place.symlink_to(REPOSITORY, target_is_directory=True)
    words = ["--snakefile", str(place / "Snakefile"), "--directory", str(tmp_path)]
    outcome = run_forked("snakemake", [*words, "--cores", "1", "--dry-run"])
    assert outcome.code != 0
    assert_one_error(outcome.text, [f"the clone's path, '{place}', holds a brace"])


def assert_one_error(text: str, expected: list[str]) -> None:
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, text
    for part in expected:
        assert part in errors[0]
    assert "Traceback" not in text
