"""Where in a sample its advantage is put: maps by the features of patches (VIPO, arXiv 2511.18719).

A frame's patches are reduced to their principal components, which are summed up to one number a
patch; smoothed, and brought to the latents' sites, that is the map. A component's sign is
arbitrary; here its largest loading is positive, so that maps are the same on every machine.

Shapes: B samples, F frames, h w patches of a frame, N patches, D features, K components. Importing
this file does not import torch.
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
    frames = [_frame_map(frame, chosen) for frame in patches.flatten(0, 1)]
    return torch.stack(frames).unflatten(0, patches.shape[:2]).float().to(pixels.device)


def _frame_map(patches: Tensor, chosen: AllocationSettings) -> Tensor:
    """One frame's map `[h, w]` of its patches `[h, w, D]`."""
    found, explained = principal(patches.flatten(0, 1), chosen.components)
    values = pooled(found, explained, chosen.pooling).view(patches.shape[:2])
    for axis in (0, 1) if chosen.smoothing else ():
        smoother = _gaussian(values.shape[axis], chosen.smoothing).to(values)
        values = smoother @ values if axis == 0 else values @ smoother.T
    return unit(values)


def principal(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first components `[N, K]` of features `[N, D]`, and their shares of what K explain `[K]`.

    Float64; components that there are not are 0.
    """
    import torch
    from torch.nn import functional as F

    centred = features.double() - features.double().mean(dim=0)
    _, sizes, rows = torch.linalg.svd(centred, full_matrices=False)
    loadings, sizes = rows[:count].T, sizes[:count]
    largest = loadings.gather(0, loadings.abs().argmax(dim=0, keepdim=True))
    found = centred @ (loadings * largest.sign())
    missing = (0, count - len(sizes))
    explained = F.pad(sizes.square(), missing)
    return F.pad(found, missing), explained / (explained.sum() + 1e-8)


def pooled(components: Tensor, explained: Tensor, pooling: str) -> Tensor:
    """One number in [0, 1] a patch `[N]`, of its components `[N, K]`."""
    if pooling == "first":
        return unit(-components[:, 0])
    if pooling == "average":
        return unit(-components.mean(dim=1))
    reversed_each = [unit(-component) for component in components.unbind(dim=1)]
    total = sum(share * values for share, values in zip(explained, reversed_each, strict=True))
    assert not isinstance(total, int)
    return total.clamp(0, 1)


def unit(values: Tensor, constant: float = 0.5) -> Tensor:
    """Values of any shape brought to [0, 1]; `constant` where all are (nearly) equal."""
    low, high = values.min(), values.max()
    if high - low <= 1e-8:
        return values.new_full(values.shape, constant)
    return (values - low) / (high - low)


def spread(advantage: Tensor, maps: Tensor) -> Tensor:
    """Dense advantages, of each sample's `[...]` and its map `[..., *sites]`: their product."""
    return advantage.reshape(*advantage.shape, *[1] * (maps.ndim - advantage.ndim)) * maps


def on_sites(maps: Tensor, sites: tuple[int, ...]) -> Tensor:
    """A sample's map `[F, h, w]` on the latents' sites: `[H, W]`, `[T, H, W]`, or tokens `[L]`.

    Tokens stand row by row, in as many rows as fit the map's shape best. Values in [0, 1]; a map
    that is the same everywhere is 1, so the advantage stays the sample's.
    """
    import torch
    from torch.nn import functional as F

    rows, columns = sites[-2:] if len(sites) > 1 else _grid(sites[0], *maps.shape[-2:])
    found = F.interpolate(
        maps[:, None], (rows, columns), mode="bilinear", align_corners=False, antialias=True
    )
    found = torch.stack([unit(frame, constant=1.0) for frame in found[:, 0]])
    times = sites[0] if len(sites) > 2 else 1
    if len(found) != times:
        found = F.interpolate(
            found[None, None], (times, rows, columns), mode="trilinear", align_corners=False
        )[0, 0]
    return unit(found, constant=1.0).reshape(sites)


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
