"""The renderer of clips, and the oracle validated on rendered clips, noise and wrong captions."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from bpgo.scenes.captions import SIZES, CaptionError
from bpgo.scenes.video.captions import MOTIONS, parse, sample_captions
from bpgo.scenes.video.oracle import judge, parse_clips
from bpgo.scenes.video.render import (
    CELL,
    FIRST_START,
    STEP,
    MovingObject,
    first_frame,
    mutate_scene,
    render,
    render_batch,
    sample_scene,
)

TASKS = ("t2v", "i2v")


def _scenes(task):
    captions = sample_captions(200, 11, "held_out", task)
    draws = np.random.default_rng(0)
    made = [sample_scene(caption, draws) for caption in captions]
    return [caption.text for caption in captions], made, torch.from_numpy(render_batch(made))


@pytest.fixture(scope="module")
def scenes():
    return {task: _scenes(task) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_rendered_clips_are_right(task, scenes):
    texts, _, clips = scenes[task]
    assert clips.shape == (200, 5, 3, 32, 32)
    assert clips.min() >= 0
    assert clips.max() <= 1
    judged = judge(clips, texts, clips[:, 0])
    for name, scores in vars(judged).items():
        assert scores.shape == (200,), name
        assert scores.min() > 0.999, name
        assert scores.max() <= 1, name
        if name != "graded":
            assert scores.min() == 1, name


@pytest.mark.parametrize("task", TASKS)
def test_pixel_noise_changes_little(task, scenes):
    texts, _, clips = scenes[task]
    noisy = clips + 0.1 * torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    judged = vars(judge(noisy, texts, noisy[:, 0]))
    assert judged.pop("graded").mean() > 0.6  # every pixel is wrong, though no object is
    for name, scores in judged.items():
        assert scores.mean() > 0.99, name


@pytest.mark.parametrize("task", TASKS)
def test_wrong_captions_are_near_chance(task, scenes):
    texts, _, clips = scenes[task]
    judged = judge(clips, texts[1:] + texts[:1], clips[:, 0].roll(1, 0))
    assert 0.4 < judged.soft.mean() < 0.65
    assert float(judged.graded.mean()) == pytest.approx(float(judged.soft.mean()), abs=0.02)
    # An open caption may fit another's clip, and more so where the clip may hold more objects.
    ambiguity = torch.tensor([parse(text).ambiguity for text in texts[1:] + texts[:1]])
    assert judged.strict[ambiguity <= 0.5].mean() < 0.1
    assert judged.strict[ambiguity > 0.5].mean() < 0.6
    assert judged.motion.mean() < 0.7
    assert judged.first_frame.mean() < 0.1


def test_pure_noise_is_not_steady(scenes):
    texts, _, clips = scenes["t2v"]
    noise = torch.rand(clips.shape, generator=torch.Generator().manual_seed(0))
    judged = judge(noise, texts)
    assert judged.strict.mean() < 0.02
    assert judged.steadiness.mean() < 0.01
    assert judged.graded.mean() < 0.02
    assert judged.first_frame is None


def test_more_mutations_lower_the_score(scenes):
    texts, made, _ = scenes["t2v"]
    draws = np.random.default_rng(1)
    means = [
        float(
            judge(
                torch.from_numpy(render_batch([mutate_scene(one, changes, draws) for one in made])),
                texts,
            ).soft.mean()
        )
        for changes in (0, 1, 3)
    ]
    assert means[0] > means[1] > means[2]


def test_objects_stay_in_their_cells():
    for size in ("small", "large"):
        for motion in MOTIONS:
            for start in range(4, {"small": 7, "large": 5}[size]):
                thing = MovingObject("square", "red", size, motion, 1, 0, start, start)
                parsed = parse_clips(torch.from_numpy(render((thing,)))[None])
                assert parsed.present[0].tolist() == [False, False, True, False]
                path = parsed.places[0, 2]
                assert path.min() >= 0
                assert path.max() < CELL
                assert (path[1] - path[0]).tolist() == list(STEP[motion])
                assert int(parsed.motion[0, 2]) == MOTIONS.index(motion)


LEFT = MovingObject("circle", "red", "small", "left", 0, 0, 5, 6)
STILL = MovingObject("square", "blue", "large", "still", 1, 1, 4, 4)


@pytest.mark.parametrize(
    ("text", "soft", "objects", "motion"),
    [
        ("a small red circle moves left and a large blue square stays still", 1, 1, 1),
        ("a large blue square and a small red circle", 1, 1, 1),
        ("a small red circle moves right and a blue square", 6 / 7, 1, 0),
        ("a red circle moves and a square moves", 5 / 6, 1, 1 / 2),
        ("a red circle moves left", 3 / 4, 2 / 3, 1),  # one object too many
        ("the red circle moves left", 1, 1, 1),  # of a first frame that may hold more
        ("the green circle moves left", 3 / 4, 2 / 3, 1),
        ("something moves up and something", 1 / 2, 1, 0),
    ],
)
def test_scores_by_hand(text, soft, objects, motion):
    judged = judge(torch.from_numpy(render((LEFT, STILL)))[None], [text])
    assert float(judged.soft) == pytest.approx(soft)
    assert float(judged.objects) == pytest.approx(objects)
    assert float(judged.motion) == pytest.approx(motion)
    assert float(judged.strict) == float(soft == 1)
    assert float(judged.graded) == pytest.approx(soft, abs=0.01)


def clip(motion, frames=5):
    """A small red circle; it moves in the first ``frames`` - 1 steps, then rests."""
    scene = (replace(LEFT, motion=motion),)
    moving = torch.from_numpy(render(scene))
    return moving[[min(frame, frames - 1) for frame in range(5)]][None]


@pytest.mark.parametrize("text", ["something moves left", "something moves"])
def test_a_way_half_gone_counts_half(text):
    """Two facts: the number of objects, and the motion."""
    found = [float(judge(clip("left", frames), [text]).graded) for frames in range(1, 6)]
    assert found == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0], abs=0.01)
    rest = [
        float(judge(clip("left", frames), ["something stays still"]).graded)
        for frames in range(1, 6)
    ]
    assert rest == pytest.approx([1.0, 0.875, 0.75, 0.625, 0.5], abs=0.01)


def test_a_look_between_two_counts_in_between():
    """A circle that turns from red to green falls as a red one."""
    red, green = (
        torch.from_numpy(render((replace(LEFT, colour=colour),)))[None]
        for colour in ("red", "green")
    )
    found = [
        float(judge((1 - share) * red + share * green, ["a red circle moves left"]).graded)
        for share in (0, 0.1, 0.3, 0.5, 1)
    ]
    assert found[:4] == sorted(found[:4], reverse=True)
    assert found[0] > 0.999
    assert found[-1] == pytest.approx(0.75, abs=0.01)
    assert found[1] - found[3] > 0.05


def test_agreement_with_a_first_frame_by_hand():
    frame = torch.from_numpy(render((LEFT, STILL))[0])[None]
    for clip, agreement in (
        ((LEFT, STILL), 1),
        ((replace(LEFT, motion="down"), STILL), 1),  # it need not do what another clip does
        ((LEFT,), 1 / 2),
        ((replace(LEFT, colour="green"), STILL), 1 / 2),
        ((replace(LEFT, left=8), STILL), 1 / 2),
        ((replace(LEFT, row=1), STILL), 1 / 3),
    ):
        judged = judge(torch.from_numpy(render(clip))[None], ["the circle"], frame)
        assert float(judged.first_frame) == pytest.approx(agreement)


def test_jumps_and_flicker_are_not_steady():
    clip = torch.from_numpy(render((STILL,)))
    jump = clip.clone()
    jump[2] = clip[2].roll(3, -1)  # there and back: two of four steps
    gone = clip.clone()
    gone[-1] = torch.from_numpy(render(()))[0]  # the last step
    judged = judge(torch.stack((clip, jump, gone)), ["a blue square"] * 3)
    assert judged.steadiness.tolist() == [1, 1 / 2, 3 / 4]


def test_first_frames_follow_from_text_and_key():
    caption = parse("the red circle moves left")
    first = first_frame(caption, 0, "train-00001")
    assert np.array_equal(first, first_frame(caption, 0, "train-00001"))
    assert not np.array_equal(first, first_frame(caption, 0, "train-00002"))
    counts = set()
    for key in range(12):
        frame = torch.from_numpy(first_frame(caption, key))
        parsed = parse_clips(frame[None, None])
        red_circle = (parsed.shape == 0) & (parsed.colour == 0)
        assert red_circle.any()
        counts.add(int(parsed.present.sum()))
    assert counts == {1, 2}


def test_first_frames_do_not_tell_the_motion():
    """Whatever an object will do, it starts at one of the same places of its cell."""
    for motion in ("moves left", "moves right", "moves up", "moves down", "stays still"):
        caption = parse(f"the red circle {motion}")
        found = set()
        for key in range(100):
            parsed = parse_clips(torch.from_numpy(first_frame(caption, key))[None, None])
            for cell in torch.nonzero(parsed.present[0]).flatten().tolist():
                if SIZES[int(parsed.size[0, cell])] == "small":
                    found.add(tuple((parsed.places[0, cell, 0] - FIRST_START).tolist()))
                else:
                    assert parsed.places[0, cell, 0].tolist() == [FIRST_START, FIRST_START]
        assert found == set(product(range(3), repeat=2))


def test_bad_input(scenes):
    texts, _, clips = scenes["t2v"]
    with pytest.raises(ValueError, match=r"wanted \[B, 5, 3, 32, 32\]"):
        judge(clips[:, :4], texts)
    with pytest.raises(ValueError, match=r"wanted \[B, 5, 3, 32, 32\]"):
        judge(clips[..., :24], texts)
    with pytest.raises(ValueError, match="200 clips but 1 texts"):
        judge(clips, texts[:1])
    with pytest.raises(ValueError, match="first frames have shape"):
        judge(clips, texts, clips[:1, 0])
    with pytest.raises(CaptionError, match="unknown word"):
        judge(clips[:1], ["a purple cow"])
