"""The renderer, and the oracle validated on rendered scenes, noise and shuffled captions."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from bpgo.scenes.captions import CaptionError, parse, sample_captions
from bpgo.scenes.image.oracle import CLEAR, _nearest_by_look, _templates, judge, parse_images
from bpgo.scenes.image.render import (
    COLOURS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    mutate_scene,
    related,
    render,
    render_batch,
    sample_scene,
)


@pytest.fixture(scope="module")
def scenes():
    captions = sample_captions(600, 11, "held_out")
    draws = np.random.default_rng(0)
    made = [sample_scene(caption, draws) for caption in captions]
    return captions, made, torch.from_numpy(render_batch(made))


def _image(*objects: SceneObject) -> torch.Tensor:
    return torch.from_numpy(render(Scene(objects)))[None]


def test_scenes_meet_their_captions(scenes):
    captions, made, images = scenes
    assert images.shape == (600, 3, 24, 24)
    assert images.min() >= 0
    assert images.max() <= 1
    for caption, scene in zip(captions, made, strict=True):
        assert len(scene.objects) == caption.count
        cells = [(thing.row, thing.column) for thing in scene.objects]
        assert len(set(cells)) == len(cells)
        for phrase, thing in zip(caption.phrases, scene.objects, strict=True):
            for wanted, found in (
                (phrase.shape, thing.shape),
                (phrase.colour, thing.colour),
                (phrase.size, thing.size),
            ):
                assert wanted in (None, found)
        if caption.relation:
            assert related(caption.relation, cells[0], cells[1])


def test_scenes_are_deterministic():
    caption = parse("two things")
    first, second = (
        [sample_scene(caption, np.random.default_rng(5)) for _ in range(3)] for _ in range(2)
    )
    assert first == second


def test_every_object_is_read_back():
    for shape in range(len(SHAPES)):
        for colour in range(len(COLOURS)):
            for size in range(len(SIZES)):
                thing = SceneObject(SHAPES[shape], COLOURS[colour], SIZES[size], 1, 2, 1, 0)
                parsed = parse_images(_image(thing))
                assert parsed.present[0].nonzero().tolist() == [[5]]
                found = parsed.shape[0, 5], parsed.colour[0, 5], parsed.size[0, 5]
                assert tuple(int(value) for value in found) == (shape, colour, size)
                assert parsed.residual.max() < 0.01


def test_the_nearest_of_each_look_is_found():
    _, labels = _templates()
    distances = torch.rand(5, len(labels))
    found = _nearest_by_look(distances)
    for look in labels[1:].unique(dim=0).tolist():
        own = distances[:, (labels == torch.tensor(look)).all(1)]
        assert torch.equal(found[:, *look], own.amin(1))


def test_rendered_scenes_are_right(scenes):
    captions, _, images = scenes
    judged = judge(images, [caption.text for caption in captions])
    assert judged.soft.min() == 1
    assert judged.graded.min() > 0.999
    assert judged.strict.min() == 1
    assert judged.quality.min() == 1
    assert judged.artefact.max() < 0.01


def test_pixel_noise_changes_little(scenes):
    captions, _, images = scenes
    noise = 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    judged = judge(images + noise, [caption.text for caption in captions])
    assert judged.soft.mean() > 0.99
    assert judged.strict.mean() > 0.98
    assert judged.quality.mean() > 0.99
    assert judged.artefact.mean() == pytest.approx(0.1, abs=0.01)


def test_shuffled_captions_are_near_chance(scenes):
    captions, _, images = scenes
    texts = [caption.text for caption in captions]
    judged = judge(images, texts[1:] + texts[:1])
    assert 0.3 < judged.soft.mean() < 0.6
    assert float(judged.graded.mean()) == pytest.approx(float(judged.soft.mean()), abs=0.02)
    assert judged.strict.mean() < 0.15


def test_pure_noise_is_no_object(scenes):
    captions, _, images = scenes
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    judged = judge(noise, [caption.text for caption in captions])
    assert judged.strict.mean() < 0.02
    assert judged.quality.mean() < 0.01
    assert judged.graded.mean() < 0.02
    assert judged.artefact.mean() > 0.3


def test_more_mutations_lower_the_score(scenes):
    captions, made, _ = scenes
    texts = [caption.text for caption in captions]
    draws = np.random.default_rng(1)
    means = []
    for changes in (0, 1, 3):
        images = render_batch([mutate_scene(scene, changes, draws) for scene in made])
        means.append(float(judge(torch.from_numpy(images), texts).soft.mean()))
    assert means[0] > means[1] > means[2]


@pytest.mark.parametrize(
    ("text", "soft"),
    [
        ("a small red circle left of a large blue square", 1.0),
        ("a small red circle right of a large blue square", 7 / 8),
        ("a large blue square right of a small red circle", 1.0),
        ("a small green circle left of a large blue square", 7 / 8),
        ("a small red circle", 3 / 4),
        ("two small circles", 3 / 5),
        ("a shape and a thing", 1.0),
        ("a shape", 0.0),
        ("a red circle and a red circle and a red circle", 2 / 7),
    ],
)
def test_soft_score_by_hand(text, soft):
    image = _image(
        SceneObject("circle", "red", "small", 0, 0, 1, 1),
        SceneObject("square", "blue", "large", 2, 2, 0, 1),
    )
    judged = judge(image, [text])
    assert float(judged.soft[0]) == pytest.approx(soft)
    assert float(judged.strict[0]) == float(soft == 1)


def test_rendered_images_are_graded_as_they_are_counted(scenes):
    """What is drawn well is met or not, whatever was changed."""
    captions, made, _ = scenes
    texts = [caption.text for caption in captions]
    draws = np.random.default_rng(1)
    images = render_batch([mutate_scene(scene, 1, draws) for scene in made])
    judged = judge(torch.from_numpy(images), texts)
    assert float((judged.strict == 0).float().mean()) > 0.3
    assert float((judged.graded - judged.soft).abs().mean()) < 0.01


def test_what_is_drawn_worse_is_worth_less():
    """A paler object, a tinted one, a smaller one, on its way to another shape, blurred."""
    red = _image(SceneObject("circle", "red", "large", 1, 1, 0, 0))
    empty = _image()
    others = {
        "paler": empty,
        "tinted": _image(SceneObject("circle", "blue", "large", 1, 1, 0, 0)),
        "smaller": _image(SceneObject("circle", "red", "small", 1, 1, 1, 1)),
        "another shape": _image(SceneObject("square", "red", "large", 1, 1, 0, 0)),
    }
    text = ["a large red circle"]
    for name, other in others.items():
        found = [
            float(judge((1 - share) * red + share * other, text).graded)
            for share in (0.0, 0.1, 0.2, 0.4)
        ]
        assert found[0] > 0.999, name
        assert sorted(found, reverse=True) == found, name
        assert len(set(found)) == len(found), name
        assert found[-1] < 0.98, name
    box = torch.nn.functional.avg_pool2d(red, 3, 1, 1, count_include_pad=False)
    assert 0.3 < float(judge(box, text).graded) < 0.95


def test_a_half_drawn_object_is_counted_in_part():
    one = _image(SceneObject("circle", "red", "large", 0, 0, 0, 0))
    both = _image(
        SceneObject("circle", "red", "large", 0, 0, 0, 0),
        SceneObject("square", "blue", "large", 2, 2, 0, 0),
    )
    shares = torch.linspace(0, 1, 11)[:, None, None, None]
    found = judge((1 - shares) * one + shares * both, ["two things"] * 11).graded
    assert found[0] < 0.01
    assert found[-1] > 0.999
    assert (found.diff() >= 0).all()
    assert ((found > 0.05) & (found < 0.95)).sum() >= 2


def test_a_reading_is_clearly_worse_at_half_the_smallest_difference():
    templates, labels = _templates()
    apart = torch.cdist(templates.double(), templates.double()).square() / templates.shape[1]
    other = (labels[:, None] != labels[None]).any(-1)
    assert pytest.approx(float(apart[other].min()), rel=0.1) == 2 * CLEAR


def test_each_image_is_judged_alone(scenes):
    captions, _, images = scenes
    texts = [caption.text for caption in captions][::-1][:40]
    together = judge(images[:40], texts).soft
    alone = torch.cat([judge(images[i : i + 1], texts[i : i + 1]).soft for i in range(40)])
    assert torch.equal(together, alone)


def test_fast(scenes):
    captions, _, images = scenes
    texts = [caption.text for caption in captions][:96]
    judge(images[:96], texts)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        judge(images[:96], texts)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1  # 5 ms on an idle core


def test_bad_input(scenes):
    _, _, images = scenes
    with pytest.raises(ValueError, match=r"wanted \[B, 3, 24, 24\]"):
        judge(images[:, :, :12], ["a shape"] * 600)
    with pytest.raises(ValueError, match="600 images but 1 captions"):
        judge(images, ["a shape"])
    with pytest.raises(CaptionError, match="unknown word"):
        judge(images[:1], ["a purple cow"])
