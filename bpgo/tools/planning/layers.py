"""A transformer taken apart into layers, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """A linear layer: its name in the model, its widths, the vectors a sample sends through it."""

    name: str
    inputs: int
    outputs: int
    rows: int

    def matches(self, target: str) -> bool:
        """Whether an adapter's target names it (peft: the whole name or its last parts)."""
        return self.name == target or self.name.endswith(f".{target}")


@dataclass(frozen=True)
class Transformer:
    """One sample's forward pass, taken apart.

    `attention` lists (width, queries, keys) of each softmax attention; `norms` counts the
    parameters that belong to no linear layer; `blocks` counts attention blocks, a second attention
    as part of one.
    """

    width: int
    tokens: int
    linears: list[Linear]
    attention: list[tuple[int, int, int]]
    norms: int
    blocks: float

    @property
    def parameters(self) -> int:
        """Numbers that a checkpoint holds, position tables left out."""
        return self.norms + sum(
            layer.inputs * layer.outputs + layer.outputs for layer in self.linears
        )

    @property
    def linear_flops(self) -> float:
        """Products with weights."""
        return sum(2.0 * layer.rows * layer.inputs * layer.outputs for layer in self.linears)

    @property
    def attention_flops(self) -> float:
        """Queries x keys and weights x values."""
        return sum(4.0 * queries * keys * width for width, queries, keys in self.attention)

    @property
    def forward_flops(self) -> float:
        """One forward pass."""
        return self.linear_flops + self.attention_flops

    def training_flops(self, lora: bool) -> float:
        """Forward and backward pass, without what gradient checkpointing computes again.

        Backward is a product for the inputs' gradients and, for trained weights, one for theirs:
        an adapter (LoRA) leaves the second out. Both operands of attention get a gradient.
        """
        return (
            self.forward_flops + (1 if lora else 2) * self.linear_flops + (2 * self.attention_flops)
        )

    def lora_parameters(self, rank: int, targets: list[str]) -> int:
        """Parameters of an adapter on the layers that `targets` name."""
        return sum(
            rank * (layer.inputs + layer.outputs)
            for layer in self.linears
            if any(layer.matches(target) for target in targets)
        )


class Layers:
    """Collects linear layers under a name."""

    def __init__(self) -> None:
        self.found: list[Linear] = []

    def add(self, name: str, inputs: int, outputs: int, rows: int) -> None:
        self.found.append(Linear(name, inputs, outputs, rows))

    def embed(self, name: str, inputs: int, width: int) -> None:
        """Two layers for a vector a sample (timestep, guidance, pooled text)."""
        self.add(f"time_text_embed.{name}.linear_1", inputs, width, 1)
        self.add(f"time_text_embed.{name}.linear_2", width, width, 1)

    def attend(self, block: str, names: tuple[str, ...], width: int, rows: int) -> None:
        """Queries, keys, values, and the output where there is one."""
        for name in names:
            self.add(f"{block}.{name}", width, width, rows)

    def feed_forward(self, block: str, width: int, rows: int) -> None:
        """Two layers, 4 d wide between."""
        self.add(f"{block}.net.0.proj", width, 4 * width, rows)
        self.add(f"{block}.net.2", 4 * width, width, rows)
