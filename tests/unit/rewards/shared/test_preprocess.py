"""Preprocessing: what Pillow and the official transforms make of the same stored images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bpgo.rewards.shared import preprocess
from bpgo.seeding import generator

SIZES = [(24, 24), (224, 224), (448, 448), (300, 224), (225, 301), (512, 512), (97, 640)]


def draw(height: int, width: int, count: int = 2) -> Tensor:
    """Noise, and flat areas with sharp edges: ties and overshoots."""
    draws = generator(1, "preprocess", height, width)
    noise = torch.rand(count, 3, height, width, generator=draws)
    coarse = torch.rand(count, 3, 3, 4, generator=draws).round()
    blocks = torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")
    return torch.cat([noise, blocks])


def pillow(images: Tensor) -> list[Image.Image]:
    """The images as the sampler's PNG files hold them."""
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image) for image in pixels]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("wanted", [(224, 224), (28, 28), (56, 31)])
def test_resize_is_pillows_to_the_bit(shape: tuple[int, int], wanted: tuple[int, int]) -> None:
    images = draw(*shape)
    found = preprocess.pillow_resize(preprocess.stored_levels(images), *wanted)
    for level, image in zip(found, pillow(images), strict=True):
        resized = np.asarray(image.resize(wanted[::-1], Image.Resampling.BICUBIC))
        assert np.array_equal(level.permute(1, 2, 0).numpy(), resized)


@pytest.mark.parametrize("shape", SIZES)
def test_clip_pixels_are_those_of_open_clip(shape: tuple[int, int]) -> None:
    from open_clip.transform import image_transform

    official = image_transform(
        224, is_train=False, mean=preprocess.CLIP_MEAN, std=preprocess.CLIP_STD
    )
    images = draw(*shape)
    found = preprocess.clip_pixels(images, 224, crop_rounds=True)
    expected = torch.stack([official(image) for image in pillow(images)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SIZES)
def test_clip_pixels_are_those_of_transformers(shape: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = draw(*shape)
    found = preprocess.clip_pixels(images, 224)
    expected = CLIPImageProcessorPil()(pillow(images), return_tensors="pt").pixel_values
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SIZES)
def test_padded_pixels_are_those_of_torchvision(shape: tuple[int, int]) -> None:
    """hpsv2's steps on one image: to a tensor, the longer side to 224, black around it."""
    from torchvision.transforms import functional as F

    images = draw(*shape)
    for found, image in zip(preprocess.padded_pixels(images, 224), pillow(images), strict=True):
        scale = 224 / max(shape)
        sides = [round(side * scale) for side in shape]
        expected = F.to_tensor(image)
        if scale != 1:
            expected = F.resize(expected, sides, F.InterpolationMode.BICUBIC)
        rows, columns = (224 - side for side in sides)
        border = [columns // 2, rows // 2, columns - columns // 2, rows - rows // 2]
        expected = F.normalize(
            F.pad(expected, border), list(preprocess.CLIP_MEAN), list(preprocess.CLIP_STD)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_without_antialias() -> None:
    images = draw(448, 448)
    found = preprocess.padded_pixels(images, 224, antialias=False)
    assert (found - preprocess.padded_pixels(images, 224)).abs().max() > 0.1


def test_stored_levels() -> None:
    """What is stored is stored again; values beyond [0, 1] do not wrap around."""
    levels = torch.arange(256.0).view(1, 1, 16, 16)
    assert torch.equal(preprocess.stored_levels(levels / 255), levels)
    beyond = torch.tensor([[[[-0.2, 1.3, 0.5019]]]])
    assert preprocess.stored_levels(beyond).flatten().tolist() == [0, 255, 128]


def test_a_batch_is_its_images() -> None:
    images = draw(97, 64)
    for make in (preprocess.clip_pixels, preprocess.padded_pixels):
        together = make(images, 28)
        alone = torch.cat([make(images[k : k + 1], 28) for k in range(len(images))])
        assert torch.equal(together, alone)
