"""Attention without the matrix of weights in memory.

Shapes: ``B`` sequences of tokens (images or windows), ``h`` heads, ``N`` tokens, ``d`` channels a
head. ``mhra.plain_attention`` is the definition.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmuniformer.compat import is_tracing

HAS_AMX = getattr(torch.cpu, '_is_amx_tile_supported', bool)()
"""Whether the CPU multiplies tiles of bfloat16, which the fused kernel then uses."""
MAX_FUSED_BATCH = 65_535
"""Largest batch per call: CUDA's fused kernels put it on a grid axis of at most this size."""
CACHED_WEIGHTS = 1 << 21
"""Attention weights that stay in a CPU's cache, in bfloat16."""
MANY_WEIGHTS = 1 << 18
"""From this many attention weights per sequence on, one matrix product uses all cores."""


def fused_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend by the fused kernel, or in chunks where that is faster or the device needs it."""
    if (
        q.device.type == 'cpu'
        and q.dtype == torch.bfloat16
        and not HAS_AMX
        and not (dropout or torch.is_grad_enabled() or is_tracing())
    ):
        return cached_attention(q, k, v)
    if q.is_cuda and q.shape[0] > MAX_FUSED_BATCH:
        return chunked_attention(q, k, v, dropout, MAX_FUSED_BATCH)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def chunked_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float, limit: int) -> Tensor:
    """Attend by the fused kernel to at most ``limit`` sequences a call."""
    chunks = zip(q.split(limit), k.split(limit), v.split(limit), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*qkv, dropout_p=dropout) for qkv in chunks])


def cached_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with as many weights at a time as fit the cache; no gradients.

    On a CPU without AMX this is faster in bfloat16 than the fused kernel, whose small products do
    not use the processor's bfloat16 instructions well.
    """
    shape, tokens = q.shape, k.shape[2]
    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q * shape[-1] ** -0.5, k, v))
    out = torch.empty_like(q)
    parts = q, k, v, out
    if shape[2] * tokens < MANY_WEIGHTS:
        sequences = max(1, CACHED_WEIGHTS // (shape[2] * tokens))
        parts = [x.split(sequences) for x in parts]
    rows = max(1, CACHED_WEIGHTS // tokens)
    for q_part, k_part, v_part, out_part in zip(*parts, strict=True):
        for first in range(0, shape[2], rows):
            some = (..., slice(first, first + rows), slice(None))
            logits = q_part[some] @ k_part.mT
            torch.matmul(logits.softmax(-1), v_part, out=out_part[some])
    return out.view(shape)
