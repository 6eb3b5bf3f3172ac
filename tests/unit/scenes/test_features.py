"""Features of the embedded worlds: alike where the oracle reads the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from bpgo.config.yaml_files import read_yaml
from bpgo.errors import UserError
from bpgo.records import Samples
from bpgo.registry import FEATURES, load_features_class
from bpgo.scenes.image.render import SceneObject, blank, draw
from bpgo.storage.files import repository_root

FOLDER = repository_root() / "config" / "features"


def extractor(name: str, **changes: Any) -> Any:
    kind = load_features_class(name)
    values = {**read_yaml(FOLDER / f"{name}.yaml"), **changes}
    return kind(kind.Settings.model_validate(values))


def image(*objects: SceneObject) -> torch.Tensor:
    pixels = blank()
    for each in objects:
        draw(pixels, each)
    return torch.from_numpy(pixels)


def cosines(name: str, pixels: torch.Tensor) -> torch.Tensor:
    found = F.normalize(extractor(name)(Samples(pixels, ["a shape"] * len(pixels))), dim=1)
    return found @ found.T


def test_every_kind_has_a_file_and_every_file_a_kind() -> None:
    files = {path.stem: read_yaml(path)["kind"] for path in FOLDER.glob("*.yaml")}
    assert set(files.values()) == set(FEATURES)


def test_images_are_alike_where_cells_hold_the_same() -> None:
    red = SceneObject("circle", "red", "large", 0, 0, 0, 0)
    blue = SceneObject("circle", "blue", "large", 0, 0, 0, 0)
    elsewhere = SceneObject("circle", "red", "large", 2, 1, 0, 0)
    pixels = torch.stack([image(red), image(blue), image(elsewhere), image(), image()])
    found = cosines("scenes", pixels)
    assert found[0, 1] == pytest.approx(2 / 3, abs=0.02), "shape and size of three"
    assert found[0, 2] < 0.05
    assert found[3, 4] == pytest.approx(1), "blank images are alike"
    assert found[0, 3] < 0.05


def test_clips_are_alike_where_cells_do_the_same() -> None:
    clips = torch.from_numpy(blank(32, 32)).expand(3, 5, 3, 32, 32).clone()
    clips[1:, :, 0, 4:10, 4:10] = 1.0  # something red in a cell
    clips[1:, :, 1:, 4:10, 4:10] = 0.0
    found = cosines("scenes_video", clips)
    assert found[1, 2] == pytest.approx(1)
    assert found[0, 1] == pytest.approx(0)


@pytest.mark.parametrize("name", ["scenes", "scenes_video"])
def test_other_sizes_are_refused(name: str) -> None:
    pixels = torch.zeros(2, 3, 8, 8) if name == "scenes" else torch.zeros(2, 2, 3, 8, 8)
    with pytest.raises(UserError, match="features 'Oracle's cells'"):
        extractor(name)(Samples(pixels, ["a", "b"]))


@pytest.fixture(scope="module")
def tiny_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("dino")
    Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14)).save_pretrained(folder)
    return folder


def test_dinov2_embeds_images_and_the_frames_of_clips(tiny_dino: Path) -> None:
    model = extractor("dinov2", path=str(tiny_dino), pixels=28, batch_size=2)
    images = torch.rand(3, 3, 40, 56)
    found = model(Samples(images, ["x"] * 3))
    assert found.shape == (3, 16)
    torch.testing.assert_close(found[:1], model(Samples(images[:1], ["x"])), rtol=1e-4, atol=1e-5)
    clips = images[:, None].repeat(1, 4, 1, 1, 1)
    torch.testing.assert_close(model(Samples(clips, ["x"] * 3)), found, rtol=1e-4, atol=1e-5)
    # By transformers alone, at a size that needs no resizing.
    from transformers import Dinov2Model

    small = torch.rand(2, 3, 28, 28)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (small - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(tiny_dino).eval()(pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(model(Samples(small, ["x"] * 2)), expected, rtol=1e-4, atol=1e-5)


def test_dinov2_has_features_of_patches(tiny_dino: Path) -> None:
    from transformers import Dinov2Model

    model = extractor("dinov2", path=str(tiny_dino), pixels=28, batch_size=2)
    small = torch.rand(2, 3, 28, 28)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (small - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(tiny_dino).eval()(pixels).last_hidden_state[:, 1:]
    found = model.patches(Samples(small, ["x"] * 2))
    assert found.shape == (2, 1, 2, 2, 16)
    torch.testing.assert_close(found.flatten(1, 3), expected, rtol=1e-4, atol=1e-5)
    wide = torch.rand(2, 3, 3, 30, 64)  # clips; 30 to 28 pixels makes 64 into 60, or 4 patches
    assert model.patches(Samples(wide, ["x"] * 2)).shape == (2, 3, 2, 4, 16)


def test_patches_are_an_images_own_pixels() -> None:
    images = torch.rand(2, 3, 9, 13)  # what is left over is not seen
    found = extractor("patches").patches(Samples(images, ["x"] * 2))
    assert found.shape == (2, 1, 2, 3, 48)
    assert torch.equal(found[1, 0, 1, 2].view(3, 4, 4), images[1, :, 4:8, 8:12])
    clips = torch.rand(2, 5, 3, 8, 8)
    assert extractor("patches").patches(Samples(clips, ["x"] * 2)).shape == (2, 5, 2, 2, 48)
    with pytest.raises(UserError, match="size: 4 is larger than the samples, 3 by 9"):
        extractor("patches").patches(Samples(torch.rand(1, 3, 3, 9), ["x"]))


def test_another_checkpoint_is_refused(tiny_dino: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="features 'DINOv2"):
        extractor("dinov2", path=str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(UserError, match=r"is not a DINOv2: its config\.json says 'clip'"):
        extractor("dinov2", path=str(tmp_path))
    for broken in ("", '{"model_type": ', "[1]", "[" * 100_000):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(UserError, match=r"is not a DINOv2: its config\.json says None"):
            extractor("dinov2", path=str(tmp_path))
