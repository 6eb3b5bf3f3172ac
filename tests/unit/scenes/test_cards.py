"""Model and data cards say what the shipped files and the code that made them say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from bpgo.scenes import annotators
from bpgo.scenes.captions import MAX_WORDS, VOCABULARY
from bpgo.scenes.image import codec, level, reward_training, sft
from bpgo.scenes.image.render import IMAGE_SIZE
from bpgo.scenes.weights import WEIGHTS
from bpgo.storage.digests import read_digests

REPOSITORY = Path(__file__).resolve().parents[3]
MODELS = (REPOSITORY / "docs" / "model_cards.md").read_text()
DATA = (REPOSITORY / "docs" / "data_card.md").read_text()
FILES = sorted(path.relative_to(WEIGHTS).as_posix() for path in WEIGHTS.rglob("*.safetensors"))
IMAGES = [name for name in FILES if not name.startswith("video/")]


def flat(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())


def test_every_shipped_weight_is_in_a_card() -> None:
    folders = re.findall(r"`(video/\w+/)`", MODELS)
    for name in FILES:
        assert f"| `{name}` |" in MODELS or any(name.startswith(folder) for folder in folders), name


def test_a_card_names_nothing_else() -> None:
    assert sorted(re.findall(r"^\| `([\w/]+\.safetensors)` \|", MODELS, re.M)) == IMAGES
    assert all((WEIGHTS / folder).is_dir() for folder in re.findall(r"`(video/\w+/)`", MODELS))


@pytest.mark.parametrize("name", IMAGES)
def test_sizes_and_digests(name: str) -> None:
    with safe_open(WEIGHTS / name, framework="np") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    count = 0
    for shape in shapes:
        size = 1
        for length in shape:
            size *= length
        count += size
    assert f"| `{name}` | {count:,} | {read_digests(WEIGHTS)[name][:16]} |" in MODELS


def test_a_card_of_video_copies_no_number_of_its_models() -> None:
    video = MODELS[MODELS.index("## The video world") :]
    assert not re.search(r"(?<!\d)\.\d\d|[0-9a-f]{16}|,\d{3}", video)
    assert "(video.md)" in video


@pytest.mark.parametrize(
    "said",
    [
        f"at most {MAX_WORDS} words",
        f"{IMAGE_SIZE} x {IMAGE_SIZE} pixels",
        f"knows {len(VOCABULARY)} words",
        f"the codec for {codec.STEPS:,} steps and its decoder for {codec.DECODER_STEPS:,} more",
        f"courses of {sft.STEPS:,}, {sft.SECOND_STEPS:,} and {sft.NOISY_STEPS:,} steps",
        f"batches of {sft.BATCH}",
        f"{sft.CAPTION_NOISE:.0%}".replace("%", " %"),
        f"for {reward_training.STEPS} steps each",
        f"{level.KNOTS} numbers more",
    ],
)
def test_the_model_cards_say_how_they_were_trained(said: str) -> None:
    assert said in flat(MODELS)


@pytest.mark.parametrize(
    "said",
    [
        f"a grammar of {len(VOCABULARY)} words",
        f"The codec saw {codec.SCENES:,} scenes",
        f"each course of the base policy {sft.SCENES:,}",
        f"{reward_training.SAMPLED_PAIRS:,} pairs of samples",
        f"{reward_training.MUTATED_PAIRS:,} of scenes of which",
        f"{reward_training.OPEN_PAIRS:,} of scenes that meet",
        f"{reward_training.ARTEFACT_PAIRS} in which",
        f"{reward_training.REAL_PAIRS:,} captions with scenes",
    ],
)
def test_the_data_card_says_how_much_there_was(said: str) -> None:
    assert said in flat(DATA)
    assert annotators.FLIP_RATE == 0.1
    assert "One label in ten is flipped" in flat(DATA)


def test_shipped_prompts_are_counted() -> None:
    for name, count in re.findall(r"^\| `(config/[\w/.]+)` \| (\d+) \|", DATA, re.M):
        assert len((REPOSITORY / name).read_text().splitlines()) - 1 == int(count)  # less a header


def test_measured_numbers_are_those_of_the_published_table() -> None:
    """Every estimate with an interval stands in results/reference/worlds."""
    table = (REPOSITORY / "results" / "reference" / "worlds" / "worlds.md").read_text()
    found = re.findall(r"(?<![\d.])(\.\d\d)\s+\[(−?\.\d\d),\s(\.\d\d)\]", flat(MODELS))
    assert len(found) == 7
    for value, low, high in found:
        shown = f"{value} [{low}, {high}]".replace("−.", "−0.").replace(" .", " 0.")
        assert f" 0{shown.replace('[.', '[0.')}" in table, shown


def test_the_policy_loads_as_the_card_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import FluxPipeline

    [place] = re.findall(r'FluxPipeline\.from_pretrained\("([^"]+)"\)', MODELS)
    monkeypatch.chdir(REPOSITORY)
    pipe = FluxPipeline.from_pretrained(place)
    assert json.loads((REPOSITORY / place / "model_index.json").read_text())["_class_name"] == (
        type(pipe).__name__
    )


def test_links_lead_somewhere() -> None:
    for text in (MODELS, DATA):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (REPOSITORY / "docs" / link).exists(), link
        for name in re.findall(r"`((?:bpgo|config)/[\w/.]+)`", text):
            assert (REPOSITORY / name).exists(), name
