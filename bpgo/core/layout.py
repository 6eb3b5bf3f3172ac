"""Which samples share a forward pass, in the rollout and in the update, and an optimizer step.

A forward pass of another size may round differently, and then first ratios are not exactly 1. In
float32 the update fills its passes up to the rollout's size. In a smaller dtype, and where sharded
weights ask every process for equally many passes, its passes are the rollout's own, row by row.

Shapes: P groups, G samples a group, B = P * G (of this process), K trained columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bpgo.core.rollout import chunks

Split = Literal["samples", "groups", "steps"]


@dataclass(frozen=True)
class Pass:
    """One forward pass of an update: B-rows `rows` `[N]` at trained columns `columns` `[N]`."""

    rows: Tensor
    columns: Tensor


@dataclass(frozen=True)
class Layout:
    """How this process's samples of an iteration are shared out.

    `split`: an optimizer step trains every trained step of some `samples` of each group or of some
    whole `groups`, or some trained `steps` of all samples. An arm whose loss compares the samples
    of a group (`whole_groups`) has `groups` in the place of `samples`.
    """

    prompts: int
    group_size: int
    batch_size: int
    optimizer_steps: int = 1
    split: Split = "samples"
    whole_groups: bool = False
    same_rows: bool = False

    @property
    def size(self) -> int:
        """Samples in one forward pass; whole groups where the arm wants them."""
        if not self.whole_groups:
            return self.batch_size
        return max(self.group_size, self.batch_size // self.group_size * self.group_size)

    def shares(self) -> list[Tensor]:
        """The rows of each optimizer step.

        Groups are dealt out in turn: so they are those of one process that has all groups, where
        each process has equally many for each step.
        """
        steps = self.optimizer_steps
        rows = torch.arange(self.prompts * self.group_size).view(self.prompts, self.group_size)
        if self.split == "steps":
            return [rows.flatten()] * steps
        if self.whole_groups or self.split == "groups":
            return [rows[step::steps].flatten() for step in range(steps)]
        return [part.flatten() for part in rows.tensor_split(steps, dim=1)]

    def rollout_parts(self) -> list[Tensor]:
        """The rows of each forward pass of the rollout; together all rows."""
        if self.same_rows and self.split != "steps":
            return [part for share in self.shares() for part in self._cut(share)]
        return self._cut(torch.arange(self.prompts * self.group_size))

    def turns(self, columns: int, active: Tensor, keep_all: bool = False) -> list[list[Pass]]:
        """The forward passes of each optimizer step, over K columns.

        Samples that `active` `[B]` bool leaves out have no gradient: they are left out, or, where
        passes keep the rollout's rows, passes without any active one are (unless `keep_all`).
        """
        shares = self.shares()
        every = torch.arange(columns)
        if self.split == "steps":
            taken = list(every.tensor_split(self.optimizer_steps))
        else:
            taken = [every] * len(shares)
        found = []
        for share, chosen in zip(shares, taken, strict=True):
            parts = self._cut(share)
            if self.same_rows:
                parts = [part for part in parts if keep_all or active[part].any()]
            else:
                parts = [part[active[part]] for part in parts]
            passes = [
                Pass(part, torch.full_like(part, int(column)))
                for column in chosen
                for part in parts
                if len(part)
            ]
            found.append(passes if self.same_rows else _filled(passes, self.size))
        return found

    def _cut(self, rows: Tensor) -> list[Tensor]:
        return [rows[part] for part in chunks(len(rows), self.size)]


def _filled(passes: list[Pass], size: int) -> list[Pass]:
    """The same points in order, `size` to a pass."""
    if not passes:
        return []
    rows = torch.cat([one.rows for one in passes])
    columns = torch.cat([one.columns for one in passes])
    return [Pass(rows[part], columns[part]) for part in chunks(len(rows), size)]
