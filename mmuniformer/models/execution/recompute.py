"""Activation checkpointing: training recomputes in backward what is cheaper to redo than to keep.

In parts: norms, GELU and the whole FFNs of stages 1 and 2, whose maps are so large that even their
first layer costs less to repeat. Each function here gives what ``plain`` of the block gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmuniformer.compat import is_compiling
from mmuniformer.models.blocks import (
    AttentionBlock,
    GlobalBlock,
    LocalBlock,
    map_of,
    scaled,
    tokens_of,
)
from mmuniformer.models.hourglass import HourglassBlock, TokenState, cls_row


def recompute(block: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function``, keeping only ``args`` for its backward, not what it computes inside.

    It is called once now and once in backward, with the same random numbers. The second forward
    stops as soon as backward has what it needs (PyTorch's early stop), so that of
    ``linear(gelu(x))`` the GELU alone is repeated. BatchNorms of ``block``, of which it runs a
    part, count once.
    """
    if is_compiling():  # accepts no contexts, and its second forward has no side effects
        return checkpoint(function, *args, use_reentrant=False)
    return checkpoint(
        function,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), keep_running_stats(block)),
    )


@contextmanager
def keep_running_stats(block: nn.Module) -> Iterator[None]:
    """Let BatchNorms normalize by the batch without counting it in their running statistics."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


def local_in_parts(block: LocalBlock, x: Tensor) -> Tensor:
    """Run a local block, keeping the outputs of DPE and ``conv1`` and the input of the FFN."""
    x = block.pos_embed(x)
    projected = recompute(block, lambda x: block.conv1(block.norm1(x)), x)
    x = x + block.drop_path(scaled(block.gamma_1, block.conv2(block.attn(projected))))
    transformed = recompute(block, lambda x: block.mlp(block.norm2(x)), x)
    return x + block.drop_path(scaled(block.gamma_2, transformed))


def global_in_parts(block: GlobalBlock, x: Tensor, window_size: int | None = None) -> Tensor:
    """Run a global or window block: keep q, k, v and the hidden layer, not norms and GELU."""
    x = tokens_of(block.pos_embed(x))
    qkv = recompute(block, lambda x: block.attn.heads(block.norm1(x), window_size), x)
    attended = block.attn.attend(qkv, x.shape[1:-1], window_size)
    x = x + block.drop_path(scaled(block.gamma_1, attended))
    return map_of(x + block.drop_path(scaled(block.gamma_2, ffn_in_parts(block, x))))


def hourglass_in_parts(
    block: HourglassBlock, x: Tensor, state: TokenState
) -> tuple[Tensor, TokenState]:
    """Run an hourglass block, keeping what ``global_in_parts`` keeps."""

    def relate(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = recompute(block, lambda x: block.attn.heads(block.norm1(x)), tokens)
        row, attended = cls_row(q, k), block.attn.attend((q, k, v), tokens.shape[1:-1])
        tokens = tokens + block.drop_path(scaled(block.gamma_1, attended))
        transformed = ffn_in_parts(block, tokens)
        tokens = tokens + block.drop_path(scaled(block.gamma_2, transformed))
        return tokens, row, block.fast_update(attended, transformed)

    return block.plain(x, state, relate)


def ffn_in_parts(block: AttentionBlock, x: Tensor) -> Tensor:
    """Norm and transform tokens, keeping the hidden layer before its GELU alone."""
    hidden = recompute(block, lambda x: block.mlp.fc1(block.norm2(x)), x)
    return recompute(block, block.mlp.output, hidden)


IN_PARTS = {
    LocalBlock: local_in_parts,
    GlobalBlock: global_in_parts,
    HourglassBlock: hourglass_in_parts,
}
