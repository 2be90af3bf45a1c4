"""Blocks piece by piece: in inference on a CPU what is between their layers stays in the cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules import module as everywhere

CACHED_VALUES = 1 << 22
"""Values of a branch's widest layer that stay in the cache: memory is slower than arithmetic."""
CACHED_STRIPE = 1 << 20
"""Values of a stripe: several maps of its size are at work at a time."""


def as_map(rows: Tensor) -> Tensor:
    """View rows ``(M, C)`` as a channels-last map ``(1, C, M, 1)``."""
    return rows[None, :, None].permute(0, 3, 1, 2)


def is_traced() -> bool:
    """Tell whether what runs becomes a graph, which other sizes may go through."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def unwatched(module: nn.Module) -> bool:
    """Tell whether what a module gives may be changed in place: nothing else keeps or needs it."""
    hooked = everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks
    if torch.is_grad_enabled() or is_traced() or hooked:
        return False
    return not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def in_pieces(block: nn.Module, x: Tensor) -> bool:
    """Tell whether a block may treat a map piece by piece: in unwatched inference on a CPU."""
    # Asked before the layout, which a compiler would take for a property of its graph.
    free = x.device.type == 'cpu' and unwatched(block)
    return free and x.is_contiguous(memory_format=torch.channels_last)


def by_stripes(
    block: nn.Module, x: Tensor, function: Callable[[Tensor], Tensor], reach: int
) -> Tensor:
    """Return ``function(x)``, of large maps stripe by stripe.

    Args:
        block: Whose function it is.
        x: Map ``(B, C, H, W)``; the function keeps its shape.
        function: What it gives for a pixel depends on pixels up to ``reach`` rows away.
        reach: Rows that are computed twice, on either side of a stripe.
    """
    if not in_pieces(block, x):
        return function(x)
    height = max(1, CACHED_STRIPE // (x.shape[1] * x.shape[3]))
    if height >= x.shape[2]:
        return function(x)
    out = None
    for index, top in itertools.product(range(x.shape[0]), range(0, x.shape[2], height)):
        first = max(0, top - reach)
        stripe = function(x[index : index + 1, :, first : top + height + reach])
        if out is None:
            out = torch.empty_like(x, dtype=stripe.dtype)
        out[index, :, top : top + height] = stripe[0, :, top - first :][:, :height]
    return out


def add_pointwise(
    block: nn.Module, x: Tensor, branch: Callable[[Tensor], Tensor], width: int
) -> Tensor:
    """Return ``x + branch(x)``; in inference on a CPU it may be ``x`` itself, changed in place.

    Args:
        block: Whose branch it is. In training, and where hooks may keep what they see, ``x`` stays.
        x: Map ``(B, C, H, W)`` that nothing else reads.
        branch: Point-wise: what it gives for a pixel depends on that pixel alone.
        width: Channels of its widest layer.
    """
    if not in_pieces(block, x):
        return x + branch(x)
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    for piece in rows.split(max(1, CACHED_VALUES // width)):
        as_map(piece).add_(branch(as_map(piece)))
    return x
