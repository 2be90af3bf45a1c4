"""Point-wise branches by rows: in inference on a CPU their wide middle stays in the cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CACHED_VALUES = 1 << 22
"""Values of a branch's widest layer that stay in the cache: memory is slower than arithmetic."""


def as_map(rows: Tensor) -> Tensor:
    """View rows ``(M, C)`` as a channels-last map ``(1, C, M, 1)``."""
    return rows[None, :, None].permute(0, 3, 1, 2)


def unwatched(module: nn.Module) -> bool:
    """Tell whether what a module gives may be changed in place: nothing else keeps or needs it."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in module.modules())


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
    in_rows = x.device.type == 'cpu' and x.is_contiguous(memory_format=torch.channels_last)
    if not in_rows or not unwatched(block):
        return x + branch(x)
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    for piece in rows.split(max(1, CACHED_VALUES // width)):
        as_map(piece).add_(branch(as_map(piece)))
    return x
