"""Scaled dot-product attention in two forms: fused (fast) and plain (the definition).

Shapes: ``B`` sets of tokens (images or windows), ``h`` heads, ``N`` tokens, ``d`` channels a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# CUDA's fused kernels put the batch on a grid axis of at most this many entries.
MAX_FUSED_BATCH = 65_535


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
    if q.is_cuda and q.shape[0] > MAX_FUSED_BATCH:
        return chunked_attention(q, k, v, dropout, MAX_FUSED_BATCH)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def chunked_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float, limit: int) -> Tensor:
    """Fused attention over at most ``limit`` sets of tokens a call."""
    chunks = zip(q.split(limit), k.split(limit), v.split(limit), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*qkv, dropout_p=dropout) for qkv in chunks])
