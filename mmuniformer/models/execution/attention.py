"""Scaled dot-product attention in two forms: fused (fast) and plain (the definition).

Shapes: ``B`` sets of tokens (images or windows), ``h`` heads, ``N`` tokens, ``d`` channels a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmuniformer.models.execution.tiling import is_traced

# CUDA's fused kernels put the batch on a grid axis of at most this many entries.
MAX_FUSED_BATCH = 65_535
CACHED_WEIGHTS = 1 << 21
"""Attention weights that stay in a CPU's cache, in bfloat16."""
MANY_WEIGHTS = 1 << 18
"""Attention weights of a set from which on its products use all cores by themselves."""


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Softmax of ``q k^T / sqrt(d)``: ``(B, h, M, d)`` and ``(B, h, N, d)`` give ``(B, h, M, N)``.

    The softmax runs in float32 at least: half precision overflows in its sum. So does the result.
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend with the whole ``N x N`` matrix in memory: the readable definition."""
    weights = F.dropout(attention_weights(q, k), dropout)
    return weights.to(v.dtype) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend without the ``N x N`` matrix, in chunks where the device limits the batch."""
    if (
        q.device.type == 'cpu'
        and q.dtype == torch.bfloat16
        and not (dropout or torch.is_grad_enabled() or is_traced())
    ):
        return blocked_attention(q, k, v)
    if q.is_cuda and q.shape[0] > MAX_FUSED_BATCH:
        return chunked_attention(q, k, v, dropout, MAX_FUSED_BATCH)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def chunked_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float, limit: int) -> Tensor:
    """Fused attention over at most ``limit`` sets of tokens a call."""
    chunks = zip(q.split(limit), k.split(limit), v.split(limit), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*qkv, dropout_p=dropout) for qkv in chunks])


def blocked_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain attention on as many weights at a time as fit the cache; no gradients.

    On a CPU in bfloat16 this is faster than the fused kernel, whose small products do not use
    the processor's bfloat16 instructions well.
    """
    shape, tokens = q.shape, k.shape[2]
    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q * shape[-1] ** -0.5, k, v))
    out = torch.empty_like(q)
    parts = q, k, v, out
    if shape[2] * tokens < MANY_WEIGHTS:
        sets = max(1, CACHED_WEIGHTS // (shape[2] * tokens))
        parts = [x.split(sets) for x in parts]
    rows = max(1, CACHED_WEIGHTS // tokens)
    for q_part, k_part, v_part, out_part in zip(*parts, strict=True):
        for first in range(0, shape[2], rows):
            some = (..., slice(first, first + rows), slice(None))
            logits = q_part[some] @ k_part.mT
            torch.matmul(logits.softmax(-1), v_part, out=out_part[some])
    return out.view(shape)
