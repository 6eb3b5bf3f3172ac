"""Rotary position embedding (arXiv 2104.09864) as one complex product, its tables made once.

diffusers turns queries and keys by several small products and sums, and makes its cosines and sines
anew in every forward pass: in a tiny transformer on a CPU that is a twentieth of an iteration. Here
two neighbours are one complex number, and turning it is one product with `cos + i sin`. That gives
the same bits, forward and backward, where torch rounds each of the products and sums inside it, as
diffusers does. Torch's vector code rounds so; its code for the rest of a row (modulo 8 numbers), or
of a thread's part, may fuse a product with a sum. So it is used

- in float32 on a CPU, with one thread and heads of a multiple of 16 numbers;
- where a trial with the transformer's own attention layers gives equal bits: another processor
  rounds otherwise, another diffusers may pair other numbers.

Everywhere else diffusers' own code stays.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bpgo.seeding import generator

ROW = 8  # complex numbers of which torch's vector code leaves no rest
POSITIONS = {
    "pos_embed": "FluxPosEmbed",
    "rope": "WanRotaryPosEmbed",
}  # where a transformer has one
LAYERS = ("FluxAttention", "WanAttention")
TRIAL_BATCH = 3
TRIAL_TEXT = 5  # of 18 tokens


class Rotary(NamedTuple):
    """Tables for S positions: what diffusers passes on, and `cos + i sin` and its conjugate.

    The latter two are complex64, `[S, heads * D / 2]`.
    """

    own: Any
    turn: Tensor
    back: Tensor

    def part(self, rows: slice) -> Rotary:
        """The complex tables of some positions."""
        return Rotary(None, self.turn[rows], self.back[rows])


class Turn(torch.autograd.Function):
    """Queries or keys, turned; their gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, tables: Rotary) -> Tensor:
        """`[B, S, heads, D]` or `[B, S, heads * D]`, float32."""
        ctx.tables = tables
        return _product(values, tables.turn)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Of the values."""
        return _product(gradient, ctx.tables.back), None


def _product(values: Tensor, table: Tensor) -> Tensor:
    if values.stride(-1) != 1:
        values = values.contiguous()
    pairs = values.view(torch.complex64)
    return (pairs * table.view(pairs.shape[1:])).view(torch.float32)


class KeptTables(nn.Module):
    """A transformer's positions, whose tables are made again only for other positions."""

    def __init__(self, own: Any, heads: int) -> None:
        super().__init__()
        self.own: Any = own
        self.heads = heads
        self.positions: Tensor | torch.Size | None = None
        self.tables: Rotary | None = None

    def forward(self, given: Tensor) -> Rotary:
        """Of token positions `[S, 3]` (Flux), or of latents `[B, C, F, H, W]` (Wan)."""
        if self.tables is None or not self._same(given):
            self.positions = given.clone() if given.ndim == 2 else given.shape[2:]
            own = self.own(given)
            # Each cosine and sine is there twice, for both numbers of a pair.
            cos, sin = (each.view(-1, 1, each.shape[-1])[..., ::2] for each in own)
            turn = torch.complex(cos, sin).expand(-1, self.heads, -1).flatten(1)
            self.tables = Rotary(own, turn, turn.conj().resolve_conj())
        return self.tables

    def _same(self, given: Tensor) -> bool:
        if isinstance(self.positions, Tensor):
            return torch.equal(self.positions, given)
        return self.positions == given.shape[2:]


class RotaryProcessor:
    """A processor of diffusers, which finds queries and keys turned after their norms."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> Any:
        """What the wrapped processor gives; torch may have got more threads since it was chosen."""
        if rotary is not None and torch.get_num_threads() == 1:
            text = 0 if encoder_hidden_states is None else encoder_hidden_states.shape[1]
            attn, turned = _TurningLayer(attn, rotary, text), None
        else:
            turned = None if rotary is None else rotary.own
        return self.own(attn, hidden_states, encoder_hidden_states, attention_mask, turned)


class _TurningLayer:
    """An attention layer as its processor sees it; its norms also turn. Text comes first."""

    def __init__(self, layer: Any, tables: Rotary, text: int) -> None:
        self._layer = layer
        rows = {"norm_q": tables, "norm_k": tables}
        if text:
            first, rest = tables.part(slice(text)), tables.part(slice(text, None))
            rows = {"norm_q": rest, "norm_k": rest, "norm_added_q": first, "norm_added_k": first}
        for name, part in rows.items():
            setattr(self, name, partial(_norm_and_turn, getattr(layer, name), part))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _norm_and_turn(norm: Any, tables: Rotary, values: Tensor) -> Tensor:
    turned: Tensor = Turn.apply(norm(values), tables)
    return turned


def use_complex_rotary(transformer: Any, dtype: torch.dtype) -> str:
    """Let a transformer of diffusers turn queries and keys by a complex product, where equal.

    Args:
        transformer: on its device; nothing happens if it has no rotary embedding that we know.
        dtype: in which it computes.

    Returns:
        Why it is not used, where it could be expected: on a CPU in float32; else empty.
    """
    name = next((name for name in POSITIONS if _is(getattr(transformer, name, None), name)), None)
    if name is None or dtype != torch.float32:
        return ""
    if next(transformer.parameters()).device.type != "cpu":
        return ""
    if torch.get_num_threads() > 1:
        return "torch has more than one thread"
    heads, width = transformer.config.num_attention_heads, transformer.config.attention_head_dim
    if width % (2 * ROW):
        return f"its heads are {width} numbers wide, no multiple of {2 * ROW}"
    positions = KeptTables(getattr(transformer, name), heads)
    layers = [each for each in transformer.modules() if _turns(each)]
    one_of_each_kind = {layer.added_kv_proj_dim: layer for layer in layers}.values()
    try:
        equal = all(_equal(layer, positions) for layer in one_of_each_kind)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        return f"the attention of this diffusers is another: {' '.join(str(error).split())}"
    if not equal:
        return "it rounds otherwise than diffusers' own on this processor"
    setattr(transformer, name, positions)
    for layer in layers:
        layer.set_processor(RotaryProcessor(layer.processor))
    return ""


def _is(module: Any, name: str) -> bool:
    return type(module).__name__ == POSITIONS[name]


def _turns(module: Any) -> bool:
    """Whether it is an attention layer that is handed rotary tables."""
    known = type(module).__name__ in LAYERS
    return known and not getattr(module, "is_cross_attention", False)


def _equal(layer: Any, positions: KeptTables) -> bool:
    """Whether a layer's outputs and gradients have the same bits with both processors."""
    own, ours = (
        _trial(layer, processor, positions)
        for processor in (layer.processor, RotaryProcessor(layer.processor))
    )
    return all(map(torch.equal, own, ours))


def _trial(layer: Any, processor: Any, positions: KeptTables) -> list[Tensor]:
    """A layer's outputs and its gradients, from random inputs and positions."""
    source, width = generator(0, "rotary"), layer.to_q.in_features
    if patch := getattr(positions.own, "patch_size", None):  # Wan
        given = torch.zeros(1, 1, 2 * patch[0], 3 * patch[1], 3 * patch[2])
    else:
        given = torch.randint(64, (18, 3), generator=source)
    tables = positions(given)
    text = TRIAL_TEXT if layer.added_kv_proj_dim is not None else 0
    inputs = [
        torch.randn(TRIAL_BATCH, tokens, width, generator=source, requires_grad=True)
        for tokens in (len(tables.turn) - text, text)
        if tokens
    ]
    with torch.enable_grad():
        rotary = tables if isinstance(processor, RotaryProcessor) else tables.own
        found = processor(layer, inputs[0], inputs[1] if text else None, None, rotary)
        outputs = found if isinstance(found, tuple) else (found,)
        wanted = [*inputs, *(each for each in layer.parameters() if each.requires_grad)]
        # A sum, since `grad` with gradients of several outputs imports the compiler.
        total = sum((each * torch.randn(each.shape, generator=source)).sum() for each in outputs)
        gradients = torch.autograd.grad(total, wanted)
    return [*outputs, *gradients]
