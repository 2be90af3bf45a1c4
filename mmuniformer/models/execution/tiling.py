"""Inference tile by tile on a CPU: what is between the layers of a block stays in the cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules

from mmuniformer.compat import is_tracing
from mmuniformer.models.blocks import GlobalBlock, LocalBlock, map_of, scaled, tokens_of
from mmuniformer.models.layers import LAYERS

CACHED_VALUES = 1 << 21
"""Values of an FFN's hidden layer that stay in the cache: memory is slower than arithmetic."""
CACHED_TILE = 1 << 20
"""Values of a tile of a map: several maps of its size are at work at a time."""


def as_map(tokens: Tensor, dims: int = 2) -> Tensor:
    """View tokens ``(M, C)`` as a channels-last map ``(1, C, M, 1)``, of a clip with one more 1."""
    return map_of(tokens[(None, ..., *[None] * (dims - 1), slice(None))])


def may_overwrite(module: nn.Module) -> bool:
    """Tell whether what a module computes may be changed in place.

    That is in inference, without tracing, and where no hook can keep what it sees.
    """
    hooked = all_modules._global_forward_hooks or all_modules._global_forward_pre_hooks
    if torch.is_grad_enabled() or is_tracing() or hooked:
        return False
    return not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def tileable(block: nn.Module, x: Tensor) -> bool:
    """Tell whether a block may run tile by tile: on a CPU, overwriting what is its own."""
    # Before the layout: under a compiler, reading it would specialize the graph.
    free = x.device.type == 'cpu' and may_overwrite(block)
    return free and x.is_contiguous(memory_format=LAYERS[x.ndim - 2].channels_last)


def tiled_local(block: LocalBlock, x: Tensor) -> Tensor:
    """Run a local block in tiles of rows, then its FFN."""
    reach = block.pos_embed.padding[0] + block.attn.padding[0]  # of both convolutions in ``mix``
    x = by_tiles(block.mix, x, reach)
    return map_of(add_ffn(block, tokens_of(x), partial(as_map, dims=x.ndim - 2)))


def tiled_global(block: GlobalBlock, x: Tensor, window_size: int | None = None) -> Tensor:
    """Run a global or window block, its FFN in tiles."""
    return map_of(add_ffn(block, block.mix(x, window_size), lambda tokens: tokens))


TILED = {LocalBlock: tiled_local, GlobalBlock: tiled_global}


def by_tiles(function: Callable[[Tensor], Tensor], x: Tensor, reach: int) -> Tensor:
    """Return ``function(x)`` of a map ``(B, C, ..., H, W)``; of a large one in tiles of whole rows.

    It keeps the shape, and a pixel depends on ``reach`` rows above and below it, which are
    computed twice.
    """
    height = max(1, CACHED_TILE * x.shape[-2] // x[0].numel())
    if height >= x.shape[-2]:
        return function(x)
    out = None
    for index, top in itertools.product(range(x.shape[0]), range(0, x.shape[-2], height)):
        first = max(0, top - reach)
        tile = function(x[index : index + 1, ..., first : top + height + reach, :])
        if out is None:
            out = torch.empty_like(x, dtype=tile.dtype)
        out[index, ..., top : top + height, :] = tile[0, ..., top - first :, :][..., :height, :]
    return out


def add_ffn(
    block: LocalBlock | GlobalBlock, tokens: Tensor, as_input: Callable[[Tensor], Tensor]
) -> Tensor:
    """Add the FFN's branch to tokens ``(B, ..., C)`` in place, as many at a time as fit the cache.

    Nothing else reads them. ``as_input`` reshapes tokens ``(M, C)`` to the input of the FFN.
    """
    tokens = tokens.contiguous()
    for tile in tokens.flatten(0, -2).split(max(1, CACHED_VALUES // block.mlp.width)):
        tile = as_input(tile)
        tile.add_(scaled(block.gamma_2, block.mlp(block.norm2(tile))))
    return tokens
