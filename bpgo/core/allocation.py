"""Where in a sample its advantage is put: maps by the features of patches (VIPO, arXiv 2511.18719).

A frame's patches are reduced to their principal components, which are summed up to one number a
patch; smoothed, and brought to the latents' sites, that is the map. A component's sign is
arbitrary; here its largest loading is positive, so that maps are the same on every machine.

Shapes: B samples, F frames of each, M frames together, h w patches of a frame, N patches, D
features, K components. Importing this file does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, SerializeAsAny

from bpgo import registry
from bpgo.config.fields import Count, NonNegative, Strict
from bpgo.config.published import FeatureSettings
from bpgo.records import Samples

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.interfaces import PatchFeatures

NOTHING = 1e-7  # a component of less than this share of the largest is rounding
TINY = 1e-300
HELD = 2**24  # numbers of patches' features that are worked on at a time, 128 MiB


class AllocationSettings(Strict):
    """How features of patches become a map."""

    # `weighted`: each component reversed, (max - z) / (max - min), by its share of the variance;
    # `first` and `average`: minus the first component, or minus the mean of all.
    pooling: Literal["weighted", "first", "average"]
    components: Count  # K, principal components
    # Standard deviation of a Gaussian, in patches; 0: none.
    smoothing: NonNegative


def _of_its_kind(value: Any) -> Any:
    """A mapping as the settings of the kind of features that it names, which must know places."""
    if isinstance(value, dict) and value.get("kind") in registry.FEATURES:
        value = registry.load_features_class(value["kind"]).Settings.model_validate(value)
    if not isinstance(value, FeatureSettings):
        raise ValueError("names no feature extractor: name a file of config/features")
    if not value.has_patches:
        raise ValueError(
            f"'{value.title}' has no features of patches, which say where something is: name"
            " another file of config/features, such as patches or dinov2_large"
        )
    return value


# A field that holds the settings of any extractor with features of patches.
PatchFeatureSettings = Annotated[SerializeAsAny[FeatureSettings], BeforeValidator(_of_its_kind)]


def load_extractor(settings: FeatureSettings, device: str) -> PatchFeatures:
    """The extractor that the settings name."""
    found: PatchFeatures = registry.load_features_class(settings.kind)(settings, device)
    return found


def patch_maps(extractor: PatchFeatures, pixels: Tensor, chosen: AllocationSettings) -> Tensor:
    """Maps `[B, F, h, w]` in [0, 1] of images `[B, 3, H, W]` or clips `[B, F, 3, H, W]`."""
    import torch

    patches = extractor.patches(Samples(pixels, [""] * len(pixels)))
    frames = patches.flatten(0, 1).split(max(1, HELD // patches[0, 0].numel()))
    maps = torch.cat([_frame_maps(some, chosen) for some in frames])
    return maps.unflatten(0, patches.shape[:2]).float().to(pixels.device)


def _frame_maps(patches: Tensor, chosen: AllocationSettings) -> Tensor:
    """Maps `[M, h, w]` of M frames, of their patches `[M, h, w, D]`."""
    found, explained = principal(patches.flatten(1, 2), chosen.components)
    values = pooled(found, explained, chosen.pooling).unflatten(1, patches.shape[1:3])
    if chosen.smoothing:
        down, right = (_gaussian(side, chosen.smoothing).to(values) for side in values.shape[1:])
        values = down @ values @ right.T
    return unit(values, over=2)


def principal(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first components `[..., N, K]` of features `[..., N, D]`, and their shares `[..., K]`.

    A share is of what all K explain. Float64; components that there are not are 0.
    """
    import torch
    from torch.nn import functional as F

    centred = features.double() - features.double().mean(dim=-2, keepdim=True)
    patches, width = centred.shape[-2:]
    if patches < width:  # the smaller of the two products has the same components
        explained, vectors = torch.linalg.eigh(centred @ centred.mT)
        loadings = centred.mT @ vectors
        sizes = loadings.norm(dim=-2, keepdim=True)
        loadings = loadings / sizes.clamp_min(NOTHING * sizes.amax(-1, keepdim=True) + TINY)
    else:
        explained, loadings = torch.linalg.eigh(centred.mT @ centred)
    explained, loadings = explained.flip(-1)[..., :count], loadings.flip(-1)[..., :count]
    largest = loadings.gather(-2, loadings.abs().argmax(dim=-2, keepdim=True))
    found = centred @ (loadings * largest.sign())
    missing = (0, count - explained.shape[-1])
    explained = F.pad(explained.clamp_min(0), missing)
    return F.pad(found, missing), explained / (explained.sum(-1, keepdim=True) + 1e-8)


def pooled(components: Tensor, explained: Tensor, pooling: str) -> Tensor:
    """One number in [0, 1] a patch `[..., N]`, of its components `[..., N, K]`."""
    if pooling == "first":
        return unit(-components[..., 0])
    if pooling == "average":
        return unit(-components.mean(dim=-1))
    reversed_each = [unit(-component) for component in components.unbind(-1)]
    shares = explained[..., None, :].unbind(-1)
    total = sum(share * values for share, values in zip(shares, reversed_each, strict=True))
    assert not isinstance(total, int)
    return total.clamp(0, 1)


def unit(values: Tensor, constant: float = 0.5, over: int = 1) -> Tensor:
    """Values brought to [0, 1] over the last `over` dimensions.

    `constant` where all of these are (nearly) equal.
    """
    last = tuple(range(-over, 0))
    low, high = values.amin(last, keepdim=True), values.amax(last, keepdim=True)
    found = (values - low) / (high - low)
    return found.where(high - low > 1e-8, constant)


def spread(advantage: Tensor, maps: Tensor) -> Tensor:
    """Dense advantages, of each sample's `[...]` and its map `[..., *sites]`: their product."""
    return advantage.reshape(*advantage.shape, *[1] * (maps.ndim - advantage.ndim)) * maps


def on_sites(maps: Tensor, sites: tuple[int, ...]) -> Tensor:
    """Maps `[B, F, h, w]` on the latents' sites, `[B, *sites]`.

    Sites are `[H, W]`, `[T, H, W]` or tokens `[L]`. Tokens stand row by row, in as many rows as fit
    the map's shape best. Values in [0, 1]; a map that is the same everywhere is 1, so the advantage
    stays the sample's.
    """
    from torch.nn import functional as F

    rows, columns = sites[-2:] if len(sites) > 1 else _grid(sites[0], *maps.shape[-2:])
    frames = maps.flatten(0, 1)[:, None]
    found = F.interpolate(
        frames, (rows, columns), mode="bilinear", align_corners=False, antialias=True
    )
    found = unit(found, constant=1.0, over=2).view(*maps.shape[:2], rows, columns)
    times = sites[0] if len(sites) > 2 else 1
    if found.shape[1] != times:
        found = F.interpolate(
            found[:, None], (times, rows, columns), mode="trilinear", align_corners=False
        )[:, 0]
    return unit(found, constant=1.0, over=3).reshape(len(maps), *sites)


def _grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of so many tokens, as near to the shape as can be."""
    rows = [count for count in range(1, tokens + 1) if tokens % count == 0]
    best = min(rows, key=lambda count: abs(count * count / tokens - height / width))
    return best, tokens // best


def _gaussian(length: int, std: float) -> Tensor:
    """The matrix `[n, n]` of a Gaussian filter, cut at four standard deviations, edges mirrored."""
    import torch

    reach = int(4 * std + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets.double() / std).square())
    places = (torch.arange(length)[:, None] + offsets) % (2 * length)
    places = torch.where(places < length, places, 2 * length - 1 - places)
    zeros = torch.zeros(length, length, dtype=torch.float64)
    return zeros.scatter_add(1, places, (weights / weights.sum()).expand(length, -1))
