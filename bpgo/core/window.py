"""A window of steps that moves along the schedule while the policy is trained (arXiv 2507.21802).

Only steps inside it have noise and are trained. Where it stands depends on the iteration alone (or
on a draw that is named by run and iteration), so runs can be resumed and processes agree.
Importing this file does not import torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from bpgo.config.fields import Count, NonNegative, Strict
from bpgo.config.settings import RolloutSettings
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Generator


UNTRAINED = 2  # the schedule's last steps that no window has, as in MixGRPO


class WindowSettings(Strict):
    """How large the window is, and how it moves; MixGRPO's four strategies.

    It stays `iterations` at each place (`progressive`); fewer at later ones, down to
    `last_iterations` (`decay`); or fewer from `decay_from` on, by `decay_rate` (`exp_decay`).
    `random`: another place in each iteration. It may be kept to the first `within` steps.
    """

    size: Count  # steps that it holds
    # How it moves, as MixGRPO names it.
    strategy: Literal["progressive", "random", "decay", "exp_decay"]
    stride: Annotated[int, Field(ge=0)]  # steps that it moves by; 0: it never moves
    iterations: Count  # for which it stays at a place
    roll_back: bool  # at the end it starts again; false: it stays at its last place
    last_iterations: Count  # the same at the last place; of strategy decay
    # The step from which stays get shorter; of strategy exp_decay.
    decay_from: Annotated[int, Field(ge=0)]
    decay_rate: NonNegative  # how fast they do, per step
    within: Count | None = None  # steps, from the first, that it may hold; None: all but the last

    def end(self, sizes: RolloutSettings, key: str) -> int:
        """One past the last step that it may hold; `UserError` where it does not fit."""
        found = sizes.steps - max(UNTRAINED, sizes.deterministic_tail)
        limit = (
            f"it never has the last {sizes.steps - found} of {sizes.steps}"
            " (rollout.steps, rollout.deterministic_tail)"
        )
        if self.within is not None:
            if self.within > found:
                raise UserError(
                    f"{key}.within: {self.within} is more than the {max(found, 0)} steps that a"
                    f" window may hold: {limit}"
                )
            found, limit = self.within, f"{key}.within is {self.within}"
        if self.size > found:
            raise UserError(
                f"{key}.size: {self.size} is more than the {max(found, 0)} steps that a window may"
                f" hold: {limit}"
            )
        return found

    def stay(self, start: int, end: int) -> int:
        """For how many iterations it starts at a step."""
        if self.strategy == "decay":
            share = start / end
            now = int(self.iterations * (1 - share) + self.last_iterations * share)
            return max(self.last_iterations, now)
        if self.strategy == "exp_decay":
            late = max(0, start - self.decay_from)
            return max(1, math.ceil(self.iterations * math.exp(-self.decay_rate * late)))
        return self.iterations

    def places(self, end: int) -> list[int]:
        """Where it starts in each iteration, once along the schedule.

        Near the end it is cut short, but never empty. `random`: every place where it is whole.
        """
        if self.strategy == "random":
            return list(range(end - self.size + 1))
        starts = range(0, end, self.stride or end)
        return [start for start in starts for _ in range(self.stay(start, end))]

    def steps(self, iteration: int, end: int, generator: Generator) -> list[int]:
        """What it holds in an iteration, numbered from 1."""
        places = self.places(end)
        if self.strategy == "random":
            import torch

            place = int(torch.randint(len(places), (), generator=generator))
        elif self.roll_back:
            place = (iteration - 1) % len(places)
        else:
            place = min(iteration, len(places)) - 1
        return list(range(places[place], min(places[place] + self.size, end)))


def shortened(first: int, last: int, share: float) -> list[int]:
    """About `share` of the noise levels number `first` to `last`, evenly spaced, both ends in.

    MixGRPO-Flash spaces max(1, int(share * levels)) points evenly in time; here they are levels of
    the schedule, and two at least, since one alone would not reach the end.
    """
    points = max(2, int((last - first + 1) * share))
    return [first + round(k * (last - first) / (points - 1)) for k in range(points)]
