"""Full weights spread over several processes: FSDP2 (`torch.distributed.fsdp.fully_shard`).

Each process holds its share of every weight, gradient and optimizer state; a block's weights are
gathered while it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bpgo.interfaces import Policy


def shard(module: nn.Module, device: torch.device) -> None:
    """Spread the weights of a transformer, block by block (the entries of its `ModuleList`s).

    Gradients are averaged over the processes, in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (torch.distributed.get_world_size(),)),
        "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32),
        "reshard_after_forward": True,
    }
    for blocks in module.children():
        if isinstance(blocks, nn.ModuleList):
            for block in blocks:
                fully_shard(block, **options)
    fully_shard(module, **options)


class ShardedModel:
    """A policy's transformer, sharded, and what is needed to write it whole.

    `reference` is the policy's `reference_velocity`: where it belongs to a frozen copy of the
    policy, the copy is sharded too.
    """

    def __init__(self, policy: Policy, reference: Callable[..., Tensor] | None) -> None:
        transformer: Any = policy.transformer
        with torch.device("meta"):  # no memory until weights are put in
            self._whole = type(transformer).from_config(transformer.config)
        self.policy = policy
        shard(policy.transformer, policy.device)
        owner = getattr(reference, "__self__", policy)
        if owner.transformer is not policy.transformer:
            shard(owner.transformer, policy.device)

    @contextmanager
    def whole(self, keep: bool) -> Iterator[None]:
        """Inside the block the policy holds all weights on the CPU, where `keep`; all must ask."""
        sharded = self.policy.transformer
        weights = gathered(sharded.state_dict(), keep)
        if keep:
            self._whole.load_state_dict(weights, assign=True)
            self.policy.transformer = self._whole
        try:
            yield
        finally:
            self.policy.transformer = sharded
            self._whole.to("meta")


def is_sharded(tensor: Tensor) -> bool:
    """Whether other processes hold parts of this tensor."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, on every process (all must ask); others as they are."""
    if not is_sharded(tensor):
        return tensor
    complete: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return complete


def local_size(tensor: Tensor) -> int:
    """How many numbers of a tensor this process holds."""
    if not is_sharded(tensor):
        return tensor.numel()
    return int(tensor.to_local().numel())  # type: ignore[attr-defined]


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors on the CPU, one at a time, where `keep`; nothing elsewhere (all must ask)."""
    found = {}
    for name, value in tensors.items():
        complete = whole(value.detach())
        if keep:
            found[name] = complete.cpu() if is_sharded(value) else complete
    return found


def part_of(complete: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, laid out like `like`; unsharded: the whole."""
    if not is_sharded(like):
        return complete
    from torch.distributed.tensor import distribute_tensor

    # Every process has the whole: none needs to send.
    return distribute_tensor(
        complete.to(like.device),
        like.device_mesh,  # type: ignore[attr-defined]
        like.placements,  # type: ignore[attr-defined]
        src_data_rank=None,
    )
