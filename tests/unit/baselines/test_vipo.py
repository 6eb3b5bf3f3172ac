"""VIPO: an advantage is spread over the latents' sites by where the content is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.ndimage import gaussian_filter
from shipped_arms import make_arm, values_of
from tiny_world import make_trainer

from bpgo.core.advantage import group_advantage
from bpgo.core.allocation import _gaussian, on_sites, patch_maps, pooled, principal, unit
from bpgo.records import GroupRewards
from bpgo.rewards.patches import Patches, PatchesSettings
from bpgo.seeding import generator

REWARDS = torch.tensor([[0.0, 1.0, 2.0, 5.0], [1.0, 1.0, 2.0, 4.0]])


def test_components_are_those_of_known_data() -> None:
    """Points along one line: one component, along its larger loading, explains all."""
    along = torch.tensor([-3.0, -1.0, 0.0, 4.0])
    features = along[:, None] * torch.tensor([3.0, -4.0]) / 5 + 7
    found, explained = principal(features, 3)
    torch.testing.assert_close(explained, torch.tensor([1.0, 0.0, 0.0]).double())
    torch.testing.assert_close(found[:, 0], -along.double())  # -4 is the larger loading
    weights = pooled(found, explained, "weighted")
    torch.testing.assert_close(weights, (along.double() + 3) / 7)
    torch.testing.assert_close(pooled(found, explained, "first"), weights)


@pytest.mark.parametrize("shape", [(30, 5), (9, 20), (2, 6), (6, 2)])
def test_components_are_those_of_the_singular_values(shape: tuple[int, int]) -> None:
    features = torch.randn(3, *shape, generator=generator(6), dtype=torch.float64)
    features[2, :, 1:] = 0  # one component alone
    found, explained = principal(features, 3)
    left, sizes, _ = torch.linalg.svd(features - features.mean(1, keepdim=True))
    known = min(3, len(sizes[0]))
    parts = left[..., :known] * sizes[:, None, :known]
    torch.testing.assert_close(found[..., :known].abs(), parts.abs(), atol=1e-7, rtol=1e-7)
    assert not found[..., known:].any()
    shares = sizes[:, :known].square()
    torch.testing.assert_close(explained[:, :known], shares / shares.sum(1, keepdim=True))


def test_signs_do_not_depend_on_the_library() -> None:
    features = torch.randn(30, 5, generator=generator(1))
    found, _ = principal(features, 3)
    turned, _ = principal(features[torch.arange(29, -1, -1)], 3)
    torch.testing.assert_close(found, turned.flip(0))


@pytest.mark.parametrize("std", [0.5, 1.0, 2.5])
def test_smoothing_is_the_gaussian_filter_that_is_published(std: float) -> None:
    values = torch.rand(6, 7, generator=generator(2), dtype=torch.float64)
    found = _gaussian(6, std) @ values @ _gaussian(7, std).T
    torch.testing.assert_close(found, torch.from_numpy(gaussian_filter(values.numpy(), std)))


@pytest.mark.parametrize(
    ("shape", "sites", "place"),
    [
        ((1, 6, 6), (9,), (2,)),  # tokens, row by row: the upper right corner
        ((1, 4, 8), (8,), (3,)),  # two rows of four
        ((1, 6, 6), (3, 3), (0, 2)),
        ((5, 8, 8), (2, 4, 4), (0, 0, 3)),
    ],
)
def test_a_place_in_the_sample_is_the_same_place_in_its_latents(
    shape: tuple[int, ...], sites: tuple[int, ...], place: tuple[int, ...]
) -> None:
    maps = torch.full((2, *shape), 0.3)  # the second is the same everywhere
    maps[0] = 0.0
    maps[0, :, 0, -1] = 1.0
    found = on_sites(maps, sites)
    assert found.shape == (2, *sites)
    assert (found[0].min(), found[0][place]) == (0.0, 1.0)
    assert torch.equal(found[1], torch.ones(sites))


def test_maps_tell_an_object_from_its_ground() -> None:
    images = torch.full((2, 3, 24, 24), 0.9)
    images[0, 1:, 8:16, 8:16] = 0.0  # something red in the middle
    extractor = Patches(PatchesSettings(title="Patches", size=4))
    allocation: Any = make_arm(values_of("vipo")).settings
    plain = allocation.allocation.model_copy(update={"smoothing": 0.0})
    found = patch_maps(extractor, images, plain)
    assert found.shape == (2, 1, 6, 6)
    inside = torch.zeros(6, 6)
    inside[2:4, 2:4] = 1.0
    aside = found[0, 0] if found[0, 0, 2, 2] > 0.5 else 1 - found[0, 0]
    torch.testing.assert_close(aside, inside)
    assert torch.equal(found[1], torch.full((1, 6, 6), 0.5))  # nothing anywhere
    smooth = patch_maps(extractor, images, allocation.allocation)[0, 0]
    assert smooth.unique().numel() > 2
    assert (smooth[2, 2] - smooth[0, 0]).abs() > 0.5


def test_a_map_does_not_depend_on_the_samples_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = torch.rand(3, 2, 3, 16, 16, generator=generator(5))
    clips[1] = 0.5  # nothing to see
    extractor = Patches(PatchesSettings(title="Patches", size=4))
    chosen = make_arm(values_of("vipo")).settings.allocation
    together = patch_maps(extractor, clips, chosen)
    for row, alone in enumerate(clips.split(1)):
        torch.testing.assert_close(patch_maps(extractor, alone, chosen)[0], together[row])
    monkeypatch.setattr("bpgo.core.allocation.HELD", 1)  # a frame at a time
    torch.testing.assert_close(patch_maps(extractor, clips, chosen), together)


def test_advantages_are_the_samples_times_their_maps() -> None:
    arm = make_arm(values_of("vipo"))
    maps = torch.rand(2, 4, 1, 6, 6, generator=generator(4))
    maps[1, 3] = 0.2  # the same everywhere
    given = GroupRewards(REWARDS, ["p", "q"], features=maps, sites=(3, 3))
    term = arm.advantage(given)
    plain = group_advantage(REWARDS, arm.settings.advantage)
    assert (term.over, term.advantage.shape) == ("site", (2, 4, 3, 3))
    assert torch.equal(term.advantage[1, 3], plain[1, 3].expand(3, 3))
    strongest = term.advantage.flatten(2).abs().amax(2)
    torch.testing.assert_close(strongest, plain.abs())
    assert not term.advantage.abs().flatten(2).amin(2)[0].any()
    assert torch.equal(unit(torch.ones(3)), torch.full((3,), 0.5))


def test_it_trains_latents_that_are_not_packed(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        tiny_sd3_folder,
        tmp_path,
        arm="vipo",
        arm_values=values_of("vipo"),
        model={"kind": "stable_diffusion_3"},
    )
    entry = trainer.iterate(1)
    assert entry["ratio_deviation"] == 0.0
    assert entry["gradient_norm"] > 0
