"""First frames of image to video: from prompt files to tensors, each mistake named."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_world import model_settings, tiny_settings

from bpgo.config import resolve as config
from bpgo.errors import UserError
from bpgo.prompts.first_frames import read_first_frames
from bpgo.prompts.sets import Prompt, PromptList, load_prompt_set
from bpgo.steps import prompts
from bpgo.steps.prompts import read_prompts, write_prompts

ROWS = ["the boat sails\tsea.png\n", "the car stops\troad.png\n", "it moves\tsea.png\n"]


def png(colour: tuple[int, int, int], size: tuple[int, int] = (24, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sea.png").write_bytes(png((0, 0, 255)))
    (tmp_path / "road.png").write_bytes(png((255, 0, 0)))
    (tmp_path / "list.tsv").write_text("prompt\timage\n" + "".join(ROWS))
    return tmp_path


def settings_of(folder: Path, **entry: Any) -> Any:
    file = {"path": str(folder / "list.tsv"), "first_frame_column": "image", **entry}
    values = {"kind": "file", "train": 2, "evaluation": 1, "files": {"mine": file}}
    (folder / "prompts").mkdir(exist_ok=True)
    (folder / "prompts" / "mine.yaml").write_text(json.dumps(values) + "\n")
    return config.load_prompts("mine", folder)


def refused(folder: Path, **entry: Any) -> str:
    with pytest.raises(UserError) as caught:
        settings_of(folder, **entry)
    return str(caught.value)


def test_a_list_with_images(folder: Path) -> None:
    settings = settings_of(folder)
    assert settings.has_first_frames
    found = load_prompt_set(settings).split("train").prompts
    expected = {"the boat sails": "sea", "the car stops": "road", "it moves": "sea"}
    for prompt in found:
        assert prompt.first_frame == folder / f"{expected[prompt.text]}.png"


def test_mistakes_in_a_list(folder: Path) -> None:
    assert "has no column 'picture'. It has: prompt, image" in refused(
        folder, first_frame_column="picture"
    )
    (folder / "road.png").unlink()
    message = refused(folder)
    assert f"{folder}/list.tsv, line 3: there is no first frame {folder}/road.png" in message
    (folder / "list.tsv").write_text("prompt\timage\na boat\t\n")
    assert "list.tsv, line 2: 'image' is not the path of an image: ''" in refused(folder)
    message = refused(folder, path="owner/name/list.tsv", revision="0" * 40)
    assert "images are read from this machine only" in message


def test_an_image_that_does_not_fit_is_refused_by_the_configuration(folder: Path) -> None:
    """Before any job: of each file that the list names."""
    settings = settings_of(folder)
    settings.check_frames((24, 24))
    settings.check_frames((48, 48))
    with pytest.raises(
        UserError, match=r"sea\.png: the first frame has 24 x 24 pixels; clips have"
    ):
        settings.check_frames((48, 24))
    (folder / "road.png").write_bytes(png((255, 0, 0))[:50])
    with pytest.raises(UserError, match=r"road\.png: cannot be read as an image"):
        settings.check_frames((24, 24))


def test_other_images_are_other_settings(folder: Path) -> None:
    """The same list with another picture behind a name: its prompts are made again."""
    before = settings_of(folder)
    assert settings_of(folder) == before
    (folder / "road.png").write_bytes(png((255, 0, 1)))
    assert settings_of(folder).decides("train") != before.decides("train")


def written(folder: Path, made: list[Prompt], monkeypatch: pytest.MonkeyPatch) -> Path:
    class Given:
        def split(self, name: str) -> PromptList:
            return PromptList(made)

    monkeypatch.setattr(prompts, "load_prompt_set", lambda _: Given())
    output = folder / "out" / "train.jsonl"
    write_prompts(tiny_settings(folder), "train", output)
    return output


def test_images_travel_with_the_prompts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept once, by content, beside the list; the same content makes the same list."""
    made = [
        Prompt("a", "one", 0.0, folder / "sea.png"),
        Prompt("b", "two", 0.0, png((0, 0, 255))),
        Prompt("c", "three", 0.0, folder / "road.png"),
    ]
    output = written(folder, made, monkeypatch)
    text = output.read_text()
    batch = read_prompts(output)
    assert batch.first_frames is not None
    assert len(list((output.parent / "first_frames").iterdir())) == 2
    assert batch.first_frames[0] == batch.first_frames[1] != batch.first_frames[2]
    assert batch[1:].first_frames == batch.first_frames[1:]
    assert batch[[2]].first_frames == batch.first_frames[2:]
    assert written(folder, made, monkeypatch).read_text() == text
    frames = read_first_frames(batch.first_frames, model_settings(folder, task="i2v"))
    assert frames is not None
    assert frames.shape == (3, 3, 24, 24)
    assert torch.equal(frames[0], frames[1])
    assert torch.equal(frames[2, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_a_prompt_set_names_a_file_that_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"gone\.png: the first frame of prompt 'a' cannot be read"):
        written(folder, [Prompt("a", "one", 0.0, folder / "gone.png")], monkeypatch)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("missing.png", "there is no first frame"),
        (7, "first_frame 7 is not the path of an image"),
        (None, "prompt 'b' has no 'first_frame', but others have"),
    ],
)
def test_a_bad_line(value: Any, reason: str, folder: Path) -> None:
    rows = [{"id": "a", "text": "x", "first_frame": "sea.png"}, {"id": "b", "text": "y"}]
    rows[1]["first_frame"] = value
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError) as caught:
        read_prompts(folder / "p.jsonl")
    assert reason in str(caught.value)
    assert "p.jsonl" in str(caught.value)


def test_an_image_of_another_size(folder: Path) -> None:
    """Scaled where the shape is the same; refused where it would be stretched."""
    model = model_settings(folder, task="i2v", resolution=24, width=48)
    (folder / "wide.png").write_bytes(png((0, 255, 0), (96, 48)))
    frames = read_first_frames([folder / "wide.png"], model)
    assert frames is not None
    assert frames.shape == (1, 3, 24, 48)
    with pytest.raises(UserError, match="has 24 x 24 pixels; clips have 48 x 24: crop it"):
        read_first_frames([folder / "sea.png"], model)
    (folder / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"text\.png: cannot be read as an image"):
        read_first_frames([folder / "text.png"], model)
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        read_first_frames([folder / "gone.png"], model)
    assert read_first_frames(None, model) is None


def test_the_starter_set_has_a_frame_for_each_prompt() -> None:
    settings = config.load_prompts("starter_i2v", config.default_configfile().parent)
    prompts_ = load_prompt_set(settings)
    found = prompts_.split("train").prompts + prompts_.split("evaluation").prompts
    assert len(found) == 16
    frames = [prompt.first_frame for prompt in found]
    assert len(set(frames)) == 4
    for frame in set(frames):
        assert isinstance(frame, Path)
        with Image.open(frame) as image:
            assert image.size == (832, 480)
