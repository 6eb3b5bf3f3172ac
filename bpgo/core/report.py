"""What an update says of itself in the metrics.

Shapes: N rows of a forward pass, T steps of the sampler.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bpgo.core.seen import Seen, StepLoss
from bpgo.run.processes import Processes


@dataclass
class First:
    """One pass before the first optimizer step, kept on the device."""

    steps: Tensor  # [N]
    difference: Tensor  # |log p_new - log p_old| [N]
    deviation: Tensor  # the largest |ratio - 1|
    clipped: Tensor  # the share of each row's ratios that the clip range holds [N]


@dataclass
class UpdateReport:
    """Means over a batch's passes, kept on the device until the end of the update."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    weight: float = 0.0
    gradient_norms: list[float] = field(default_factory=list)
    first: list[First] = field(default_factory=list)
    ratio_deviation: float = 0.0  # the largest |ratio - 1| before the first optimizer step
    groups_dropped: int = 0
    trained_passes: int = 0  # rows that the transformer computed with a gradient
    other_passes: int = 0  # and those of further policies
    looked: bool = False  # at the first ratios
    first_values: dict[str, float] = field(default_factory=dict)

    def add(self, rows: int, **values: Tensor) -> None:
        """Count one pass of `rows` points."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach() * rows
        self.weight += rows

    def see_first(self, step: StepLoss, seen: Seen) -> None:
        """Count one pass before the first optimizer step."""
        assert step.ratio is not None
        log_ratio = step.ratio.log() if seen.noised_again else seen.log_ratio
        difference = log_ratio.detach().abs().view(len(seen), -1)
        outside = torch.zeros_like(step.ratio) if step.clipped is None else step.clipped
        clipped = outside.detach().view(len(seen), -1).float().mean(1)
        deviation = (step.ratio.detach() - 1).abs().max()
        self.first.append(First(seen.points.steps, difference.amax(1), deviation, clipped))

    def look_at_first(self) -> float | None:
        """The largest deviation of a first ratio; None once it was asked, or without ratios."""
        if not self.first or self.looked:
            return None
        self.looked = True
        self.ratio_deviation = float(torch.stack([one.deviation for one in self.first]).max())
        return self.ratio_deviation

    def finish(self, processes: Processes, device: torch.device, steps: int) -> None:
        """Join the passes of all processes, of which some may have had none."""
        self._join(processes, device)
        self.ratio_deviation = processes.largest(self.ratio_deviation)
        passes = torch.tensor([self.trained_passes, self.other_passes], device=device)
        self.trained_passes, self.other_passes = map(int, processes.sum(passes))
        empty = torch.zeros(0)
        place = torch.cat([empty.long(), *(one.steps for one in self.first)])
        difference = torch.cat([empty, *(one.difference.cpu() for one in self.first)]).double()
        clipped = torch.cat([empty, *(one.clipped.cpu() for one in self.first)]).double()
        zeros = torch.zeros(steps, dtype=torch.float64)
        total = zeros.index_add(0, place, difference)
        count = zeros.index_add(0, place, torch.ones_like(difference))
        held = zeros.index_add(0, place, clipped)
        highest = zeros.scatter_reduce(0, place, difference, "amax")
        total, count, held = processes.sum(torch.stack([total, count, held]).to(device)).cpu()
        highest = processes.gather(highest[None].to(device)).amax(0).cpu()
        for step in count.nonzero().flatten().tolist():
            self.first_values[f"first_log_ratio_mean_{step}"] = float(total[step] / count[step])
            self.first_values[f"first_log_ratio_max_{step}"] = float(highest[step])
        if count.any():
            self.first_values["first_clip_fraction"] = float(held.sum() / count.sum())
        self.first.clear()

    def _join(self, processes: Processes, device: torch.device) -> None:
        if processes.count == 1:
            return
        # A process whose groups were all dropped counted nothing; the names are the others'.
        known = processes.names(list(self.sums))
        values = [float(self.sums.get(name, 0.0)) for name in known]
        joined = processes.sum(
            torch.tensor([*values, self.weight], dtype=torch.float64, device=device)
        )
        self.weight = float(joined[-1])
        self.sums = dict(zip(known, joined, strict=False)) if self.weight else {}

    def means(self) -> dict[str, float]:
        """One number per quantity, as the metrics file has them.

        `first_log_ratio_mean_{step}` and `_max_{step}` are of |log p_new - log p_old| before the
        first optimizer step, `first_clip_fraction` the share of ratios that the clip range holds
        there. `trained_passes` and `other_passes` are totals: samples that were still alike, and
        were computed once, count once.
        """
        values = {name: float(value) / max(self.weight, 1.0) for name, value in self.sums.items()}
        norms = self.gradient_norms or [0.0]
        return {
            **dict.fromkeys(("loss", "clip_fraction"), 0.0),  # where every group was dropped
            **values,
            "gradient_norm": float(np.mean(norms)),
            "ratio_deviation": self.ratio_deviation,
            "groups_dropped": self.groups_dropped,
            "trained_passes": self.trained_passes,
            "other_passes": self.other_passes,
            **self.first_values,
        }
