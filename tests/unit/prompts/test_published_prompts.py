"""The shipped prompt sets, over stand-ins of the published files in their real layouts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml

from bpgo.config import resolve as config
from bpgo.config.settings import Settings
from bpgo.errors import UserError
from bpgo.prompts.file import FilePromptSettings
from bpgo.steps import prompts
from bpgo.storage import github
from bpgo.storage.files import read_json

FOLDER = config.default_configfile().parent
NAMES = sorted(path.stem for path in (FOLDER / "prompts").glob("*.yaml"))
PUBLISHED = ["drawbench", "geneval", "hpdv2", "partiprompts", "pickapic", "vbench2"]


def numbered(count: int, word: str) -> list[str]:
    return [f'{word} "number" {i}' for i in range(count)]


def hpdv2_train(path: Path) -> None:
    """A list of comparisons: every prompt in three of them."""
    entry = {"human_preference": [1, 0], "file_path": ["0.jpg", "1.jpg"]}
    entries = [{**entry, "prompt": text} for text in numbered(5000, "hpd") * 3]
    path.write_text(json.dumps(entries))


def json_list(count: int, word: str) -> Any:
    return lambda path: path.write_text(json.dumps(numbered(count, word)))


def geneval(count: int, word: str) -> Any:
    lines = [json.dumps({"tag": "x", "prompt": text}) + "\n" for text in numbered(count, word)]
    return lambda path: path.write_text("".join(lines))


def parti(path: Path) -> None:
    rows = "".join(f"{text}\tAnimals\tBasic\t\n" for text in numbered(1632, "parti"))
    path.write_text("Prompt\tCategory\tChallenge\tNote\n" + rows)


# How each published file looks, by the end of its path.
STAND_INS = {
    "ymhao/HPDv2/train.json": hpdv2_train,
    "benchmark/anime.json": json_list(800, "anime"),
    "benchmark/concept-art.json": json_list(800, "concept"),
    "benchmark/paintings.json": json_list(800, "painting"),
    "benchmark/photo.json": json_list(800, "photo"),
    "benchmark/drawbench.json": json_list(200, "drawbench"),
    "PartiPrompts.tsv": parti,
    "pickscore_sfw/train.txt": lambda path: path.write_text(
        "\n".join(numbered(4500, "pick")) + "\n\n"
    ),
    "847ed34b90bbafc3.parquet": lambda path: pandas.DataFrame(
        {"are_different": True, "caption": numbered(500, "validation")}
    ).to_parquet(path),
    "VBench2_full_text.txt": lambda path: path.write_text("\n".join(numbered(1013, "clip")) + "\n"),
    "train_metadata.jsonl": geneval(5000, "made"),
    "evaluation_metadata.jsonl": geneval(553, "geneval"),
}


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hub and of GitHub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("BPGO_CACHE", str(tmp_path / "bpgo"))
    return tmp_path


def fill_caches(settings: FilePromptSettings, folder: Path) -> None:
    """Lay stand-ins where a download lays the files of a set."""
    for entry in settings.files.values():
        owner, name, *rest = entry.path.split("/")
        place = folder / "hub" / f"datasets--{owner}--{name}" / "snapshots" / str(entry.revision)
        if entry.host == "github":
            place = github.cache_folder() / "github" / owner / name / str(entry.revision)
        file = place.joinpath(*rest)
        file.parent.mkdir(parents=True, exist_ok=True)
        (write,) = [write for end, write in STAND_INS.items() if entry.path.endswith(end)]
        write(file)


def without_digests(name: str) -> FilePromptSettings:
    """A shipped set without the digests, which stand-ins cannot have."""
    settings = config.load_prompts(name, FOLDER)
    assert isinstance(settings, FilePromptSettings)
    files = {
        key: entry.model_copy(update={"sha256": None}) for key, entry in settings.files.items()
    }
    return settings.model_copy(update={"files": files})


def test_shipped_sets() -> None:
    assert set(PUBLISHED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_set_says_where_it_is_from(name: str) -> None:
    settings = config.load_prompts(name, FOLDER)
    assert settings.source
    for entry in getattr(settings, "files", {}).values():
        assert entry.licence
        assert entry.present() or re.fullmatch("[0-9a-f]{40}", entry.revision)


def test_one_place_is_pinned_in_one_way() -> None:
    pins: dict[str, Any] = {}
    for name in PUBLISHED:
        for entry in config.load_prompts(name, FOLDER).files.values():  # type: ignore[attr-defined]
            assert pins.setdefault(entry.path, entry) == entry
    assert len(pins) == len(STAND_INS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_becomes_prompts(name: str, caches: Path) -> None:
    settings = without_digests(name)
    fill_caches(settings, caches)
    run = Settings.model_construct(prompts=settings)
    texts = {}
    for split in prompts.SPLITS:
        output = caches / "prompts" / f"{split}.jsonl"
        lines = prompts.write_prompts(run, split, output)
        assert all("none was known to check it by" in line for line in lines)
        batch = prompts.read_prompts(output, getattr(settings, split))
        texts[split] = set(batch.texts)
        assert len(texts[split]) == getattr(settings, split)
        manifest = read_json(caches / "prompts" / f"{split}.manifest.json")
        assert manifest["prompts"] == len(batch)
        for key, note in manifest["files"].items():
            assert note["revision"] == settings.files[key].revision
            assert re.fullmatch("[0-9a-f]{64}", note["sha256"])
            assert note["sha256_expected"] is None
    assert not texts["train"] & texts["evaluation"]


def test_a_benchmark_of_four_styles_is_mixed(caches: Path) -> None:
    settings = without_digests("hpdv2")
    fill_caches(settings, caches)
    output = caches / "evaluation.jsonl"
    prompts.write_prompts(Settings.model_construct(prompts=settings), "evaluation", output)
    first = [line.split("-")[0] for line in prompts.read_prompts(output).ids[:256]]
    assert all(first.count(style) > 32 for style in ("anime", "concept_art", "paintings", "photo"))


def test_another_file_than_the_pinned_one(caches: Path) -> None:
    settings = config.load_prompts("hpdv2", FOLDER)
    assert isinstance(settings, FilePromptSettings)
    fill_caches(settings, caches)
    with pytest.raises(UserError, match=r"prompt file 'hpdv2': .*train\.json has the SHA-256"):
        prompts.write_prompts(
            Settings.model_construct(prompts=settings), "train", caches / "train.jsonl"
        )
    assert not (caches / "train.jsonl").exists()


def test_a_local_copy_by_overrides(caches: Path) -> None:
    """Only the path differs: the local file is read as the published one would be."""
    copy = caches / "copy.tsv"
    parti(copy)
    values = yaml.safe_load((FOLDER / "config.yaml").read_text())
    values["prompts"] = "partiprompts"
    values["overrides"] = {"prompts": {"partiprompts": {"files": {"parti": {"path": str(copy)}}}}}
    settings = config.resolve(values, FOLDER)
    config.save_resolved(settings, caches / "resolved.yaml")
    resolved = config.load_resolved(caches / "resolved.yaml")
    assert resolved == settings
    prompts.write_prompts(resolved, "evaluation", caches / "evaluation.jsonl")
    assert len(prompts.read_prompts(caches / "evaluation.jsonl")) == 1600


def test_fetching_ahead(caches: Path) -> None:
    lines = list(prompts.fetch("starter", FOLDER))
    assert lines[0] == "starter: 8 training and 24 evaluation prompts"
    assert all("licence Apache-2.0" in line for line in lines[1:])
    with pytest.raises(UserError, match=r"'hpdv3' is unknown.*Did you mean 'hpdv2'"):
        list(prompts.fetch("hpdv3", FOLDER))


def test_fetching_all_goes_on_after_a_failure(caches: Path) -> None:
    fill_caches(config.load_prompts("geneval", FOLDER), caches)  # type: ignore[arg-type]
    said = []
    with pytest.raises(UserError) as caught:
        for line in prompts.fetch("all", FOLDER):
            said.append(line)
    heads = {line.split(":")[0] for line in said if not line.startswith(" ")}
    failed = {line.split(":")[0] for line in str(caught.value).splitlines()}
    assert heads >= {"geneval", "scenes", "starter"}
    assert failed >= {"drawbench", "hpdv2", "partiprompts", "pickapic"}
    assert heads | failed == set(NAMES)
