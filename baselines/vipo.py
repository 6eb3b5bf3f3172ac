"""VIPO (arXiv 2511.18719; as in Tele-AI/TeleBoost, `teleboost/algorithms/vipo.py`).

Differs from `grpo` in that a sample's advantage is spread over the sites of its latents, by a map
of where its content is, and each site has a ratio of its own. The map's mathematics is in
`bpgo.core.allocation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bpgo.core.allocation import (
    AllocationSettings,
    PatchFeatureSettings,
    load_extractor,
    on_sites,
    patch_maps,
    spread,
)
from bpgo.core.arm import ArmSettings
from bpgo.core.policy_gradient import PolicyGradient, PolicyGradientSettings
from bpgo.records import GroupRewards, WeightedAdvantage

if TYPE_CHECKING:
    from torch import Tensor

    from bpgo.interfaces import PatchFeatures


class VipoSettings(PolicyGradientSettings):
    """What sees the content, and how it becomes a map."""

    features: PatchFeatureSettings  # what sees the content: a file of config/features, or a mapping
    allocation: AllocationSettings  # how it becomes a map


class Vipo(PolicyGradient):
    """Dense advantages."""

    Settings: ClassVar[type[ArmSettings]] = VipoSettings
    settings: VipoSettings
    per_site: ClassVar[bool] = True
    extractor: PatchFeatures | None = None  # loaded with the first samples

    def observe(self, samples: Tensor) -> Tensor:
        """Each decoded sample's map `[b, F, h, w]`, by patches."""
        if self.extractor is None:
            self.extractor = load_extractor(self.settings.features, str(samples.device))
        return patch_maps(self.extractor, samples, self.settings.allocation)

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        """`[P, G, *sites]`: the sample's, times its map."""
        assert groups.features is not None
        assert groups.sites is not None
        plain = super().advantage(groups).advantage
        maps = on_sites(groups.features.flatten(0, 1), groups.sites)
        dense = spread(plain, maps.unflatten(0, plain.shape).to(plain))
        return WeightedAdvantage(1.0, dense, over="site")


ARM = Vipo
