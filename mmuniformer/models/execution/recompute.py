"""Recompute in backward what is cheaper to make again than to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(block: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function``, keeping only ``args`` for its backward, not what it computes inside.

    In evaluation it is a plain call. The second forward ends before the last operation whose
    result backward does not need, so that ``linear(gelu(x))`` repeats the GELU alone.

    Args:
        block: The module that ``function`` runs, or runs a part of; its mode decides, and its
            BatchNorms count their input once.
        function: Called once now and once in backward, with the same random numbers.
        args: Its arguments.
    """
    if not (block.training and torch.is_grad_enabled()):
        return function(*args)
    return checkpoint(
        function,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), keep_running_stats(block)),
    )


class Recomputing(nn.Module):
    """A block that can repeat cheap parts of itself in backward instead of keeping them."""

    recompute_parts = False

    def part(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a part of the block: ``recompute`` it where ``recompute_parts`` says so."""
        if self.recompute_parts:
            return recompute(self, function, *args)
        return function(*args)


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
