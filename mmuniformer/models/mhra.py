"""Multi-head relation aggregators (MHRA) by attention: among all tokens, or in windows.

UniFormer, section 3.2. The local one, by convolutions, is part of ``LocalBlock``: the released
names put its layers on the block itself. ``B`` sequences (images, clips or windows), ``h`` heads,
``N`` tokens, ``d`` channels a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmuniformer.compat import is_tracing
from mmuniformer.models.layers import Linear

Heads = tuple[Tensor, Tensor, Tensor]
"""q, k and v, each ``(B, h, N, d)``."""


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Softmax of ``q k^T / sqrt(d)``: ``(B, h, M, d)`` and ``(B, h, N, d)`` give ``(B, h, M, N)``.

    The softmax runs in float32 at least, as its sum overflows in half precision; the result stays
    in that type.
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend with the whole ``N x N`` matrix in memory: the readable definition."""
    weights = F.dropout(attention_weights(q, k), dropout)
    return weights.to(v.dtype) @ v


class GlobalMHRA(nn.Module):
    """Relations among all tokens of a map or, with a window size, of each window.

    The same parameters serve both. Tokens are ``(B, N, C)``, ``(B, H, W, C)`` or
    ``(B, T, H, W, C)``; windows need the second form.
    """

    attention: Callable[..., Tensor] = staticmethod(plain_attention)
    """How q, k, v and a dropout rate give the output: a policy may set a faster way."""

    def __init__(
        self,
        dim: int,
        head_dim: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        super().__init__()
        self.num_heads = dim // head_dim
        self.attn_drop = attn_drop
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def heads(self, x: Tensor, window_size: int | None = None) -> Heads:
        """Return q, k and v of tokens, a sequence per image or per window."""
        x = x.flatten(1, -2) if window_size is None else partition(x, window_size)
        qkv = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, -1)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, qkv: Heads, size: Sequence[int], window_size: int | None = None) -> Tensor:
        """Attend and project: q, k and v of tokens ``(B, *size, C)`` give such tokens."""
        out = self.attention(*qkv, self.attn_drop if self.training else 0.0)
        out = self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
        if window_size is None:
            return out.unflatten(1, size)
        return reverse(out, window_size, *size)

    def forward(self, x: Tensor, window_size: int | None = None) -> Tensor:
        """Aggregate tokens, globally or in windows of ``window_size`` tokens per side."""
        return self.attend(self.heads(x, window_size), x.shape[1:-1], window_size)


def partition(x: Tensor, size: int) -> Tensor:
    """Partition ``(B, H, W, C)`` into windows ``(B * windows, size * size, C)``.

    The right and bottom are padded with zeros, which take part in attention: trained weights
    depend on it.
    """
    b, h, w, c = x.shape
    rows, columns = count_windows(h, size), count_windows(w, size)
    # Padding by nothing would be a copy; only a graph for all sizes has to go through it.
    if is_tracing() or (rows * size, columns * size) != (h, w):
        x = F.pad(x, (0, 0, 0, columns * size - w, 0, rows * size - h))
    x = x.view(b, rows, size, columns, size, c)
    return x.transpose(2, 3).reshape(-1, size * size, c)


def reverse(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """Put windows back into a map ``(B, height, width, C)``, without the padding."""
    rows, columns = count_windows(height, size), count_windows(width, size)
    x = windows.view(-1, rows, columns, size, size, windows.shape[-1]).transpose(2, 3)
    x = x.reshape(-1, rows * size, columns * size, windows.shape[-1])
    return x[:, :height, :width]


def count_windows(side: int, size: int) -> int:
    """Return how many windows cover a side."""
    # Not -(-side // size): an exported graph divides towards zero.
    return (side + size - 1) // size
