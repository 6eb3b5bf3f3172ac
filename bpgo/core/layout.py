"""Which samples share a forward pass, in the rollout and in the update, and an optimizer step.

Samples with equal inputs (one prompt, the same latents so far, one noise level) are computed once.

A forward pass of another size may round differently, and then first ratios are not exactly 1. In
float32 the update fills its passes up to the rollout's size, and none is so small that a processor
takes other code for it. In a smaller dtype, and where sharded weights ask every process for equally
many passes, the update's passes are the rollout's own, row by row.

Shapes: P groups, G samples a group, B = P * G (of this process), T steps, K trained columns, N
points of a pass, n of them with inputs of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Split = Literal["samples", "groups", "steps"]

# Matrix products of one to three rows round differently from larger ones (seen on x86 with MKL,
# where its strict mode is not used: `bpgo.run.products`).
FEWEST_ROWS = 8


@dataclass(frozen=True)
class Pass:
    """One forward pass: the samples `rows` `[N]` at trained columns (or at a step) `columns` `[N]`.

    `first` `[n]` are the places in `rows` of the inputs that are computed, `source` `[N]` says
    which of them a point has; both None where each has its own.
    """

    rows: Tensor
    columns: Tensor
    first: Tensor | None = None
    source: Tensor | None = None

    @property
    def count(self) -> int:
        """The inputs that differ; what fills a small pass up is not counted."""
        return len(self.rows) if self.source is None else 1 + int(self.source.max())

    def once(self, values: Tensor) -> Tensor:
        """Of `[N, ...]` what is computed `[n, ...]`."""
        return values if self.first is None else values[self.first.to(values.device)]

    def spread(self, values: Tensor) -> Tensor:
        """What was computed once `[n, ...]`, for each of the N points."""
        if self.source is None:
            return values
        return values.index_select(0, self.source.to(values.device))


@dataclass(frozen=True)
class Layout:
    """How this process's samples of an iteration are shared out.

    `split`: an optimizer step trains every trained step of some `samples` of each group or of some
    whole `groups`, or some trained `steps` of all samples. An arm whose loss compares the samples
    of a group (`whole_groups`) has `groups` in the place of `samples`. `alike` `[B, T]`: the first
    sample with the same latents before a step (`bpgo.core.alike`); None: all differ.
    """

    prompts: int
    group_size: int
    batch_size: int
    optimizer_steps: int = 1
    split: Split = "samples"
    whole_groups: bool = False
    same_rows: bool = False
    alike: Tensor | None = None

    def shares(self) -> list[Tensor]:
        """The rows of each optimizer step.

        Groups are dealt out in turn: so they are those of one process that has all groups, where
        each process has equally many for each step.
        """
        steps = self.optimizer_steps
        rows = self._rows().view(self.prompts, self.group_size)
        if self.split == "steps":
            return [rows.flatten()] * steps
        if self.whole_groups or self.split == "groups":
            return [rows[step::steps].flatten() for step in range(steps)]
        return [part.flatten() for part in rows.tensor_split(steps, dim=1)]

    def at_step(self, step: int) -> list[Pass]:
        """The forward passes of the rollout at one step; together all rows."""
        own = self.same_rows and self.split != "steps"
        steps = torch.tensor([step])
        return [
            one
            for share in (self.shares() if own else [self._rows()])
            for one in self._packed(share, steps.expand(len(share)), self._inputs(share, steps))
        ]

    def turns(
        self, trained: Tensor, active: Tensor, keep_all: bool = False, stored: bool = True
    ) -> list[list[Pass]]:
        """The forward passes of each optimizer step, for trained steps `[B, K]`.

        Samples that `active` `[B]` bool leaves out have no gradient: they are left out, or, where
        passes keep the rollout's rows, passes without any active one are (unless `keep_all`).
        `stored` says that points are steps of the rollout, where inputs may be equal.
        """
        shares, every = self.shares(), torch.arange(trained.shape[1])
        taken: list[Tensor] = [every] * len(shares)
        if self.split == "steps":
            taken = list(every.tensor_split(self.optimizer_steps))
        found = []
        for share, chosen in zip(shares, taken, strict=True):
            rows = share if self.same_rows else share[active[share]]
            # One pass may hold several columns, unless it keeps the rollout's rows.
            passes = []
            for part in chosen.split(1 if self.same_rows else max(1, len(chosen))):
                points, columns = rows.repeat(len(part)), part.repeat_interleave(len(rows))
                steps = trained[points, columns]
                inputs = self._inputs(points, steps) if stored else torch.arange(len(points))
                passes += self._packed(points, columns, inputs)
            if self.same_rows and not keep_all:
                passes = [one for one in passes if active[one.rows].any()]
            found.append(passes)
        return found

    def _rows(self) -> Tensor:
        return torch.arange(self.prompts * self.group_size)

    def _inputs(self, rows: Tensor, steps: Tensor) -> Tensor:
        """A number for each point: equal where the transformer's inputs are."""
        if self.alike is None:
            return torch.arange(len(rows))
        return self.alike[rows, steps] * self.alike.shape[1] + steps

    def _packed(self, rows: Tensor, columns: Tensor, inputs: Tensor) -> list[Pass]:
        """Points in order, `batch_size` different inputs to a pass; whole groups if the arm asks.

        A group that is larger has a pass of its own.
        """
        if not len(rows):
            return []
        first, source = _distinct(inputs)
        if not self.whole_groups and len(first) == len(inputs):  # none is shared
            parts = (each.split(self.batch_size) for each in (rows, columns, inputs))
            return [self._pass(*part) for part in zip(*parts, strict=True)]
        if self.whole_groups:
            _, unit = _distinct(columns * self.prompts + rows // self.group_size)
            sizes = torch.zeros(int(unit.max()) + 1, dtype=torch.long)
            sizes.index_add_(0, unit[first], torch.ones_like(first))
        else:
            unit, sizes = source, torch.ones_like(first)
        number, filled, numbers = 0, 0, []
        for size in sizes.tolist():
            if filled and filled + size > self.batch_size:
                number, filled = number + 1, 0
            filled += size
            numbers.append(number)
        place = torch.tensor(numbers)[unit]
        return [
            self._pass(rows[chosen], columns[chosen], inputs[chosen])
            for chosen in (place == number for number in range(numbers[-1] + 1))
        ]

    def _pass(self, rows: Tensor, columns: Tensor, inputs: Tensor) -> Pass:
        """Equal inputs once; in float32 a small pass is filled up with its first input."""
        first, source = _distinct(inputs)
        fewest = 0 if self.same_rows else min(FEWEST_ROWS, self.batch_size)
        if len(first) == len(rows) >= fewest:
            return Pass(rows, columns)
        missing = max(0, fewest - len(first))
        return Pass(rows, columns, torch.cat([first, first.new_zeros(missing)]), source)


def _distinct(values: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of `[N]` values first stands `[n]`, in order, and which of these each is `[N]`."""
    found, source = values.unique(return_inverse=True)
    places = torch.arange(len(values))
    if len(found) == len(values):
        return places, places
    first = torch.full((len(found),), len(values)).scatter_reduce(0, source, places, "amin")
    order = first.argsort()
    return first[order], order.argsort()[source]
