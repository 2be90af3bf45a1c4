"""Multi-head relation aggregators (MHRA): local by convolution, global and windowed by attention.

UniFormer, section 3.2. Maps of tokens here are ``(B, H, W, C)``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmuniformer.models.execution.attention import fused_attention, plain_attention
from mmuniformer.models.execution.tiling import is_traced
from mmuniformer.models.layers import Linear

Heads = tuple[Tensor, Tensor, Tensor]
"""q, k and v."""


class LocalMHRA(nn.Module):
    """Relations in a 5x5 neighbourhood: 1x1, depthwise 5x5 and 1x1 convolutions.

    A base class rather than a part of the local block, because the released names put ``conv1``,
    ``attn`` and ``conv2`` on the block itself.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, kernel_size=1)
        self.attn = nn.Conv2d(dim, dim, kernel_size=5, padding=2, groups=dim)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size=1)

    def aggregate(self, x: Tensor) -> Tensor:
        """Aggregate a map ``(B, C, H, W)`` that ``conv1`` has projected."""
        return self.conv2(self.attn(x))


class GlobalMHRA(nn.Module):
    """Relations among all tokens of a set, by attention. The set is an image or a window."""

    def __init__(
        self,
        dim: int,
        head_dim: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        fused: bool = True,
    ):
        super().__init__()
        self.num_heads = dim // head_dim
        self.attn_drop = attn_drop
        self.attention = fused_attention if fused else plain_attention
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def heads(self, x: Tensor) -> Heads:
        """Return q, k, v, each ``(B, h, N, d)``, of tokens ``(B, N, C)``."""
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.num_heads, -1)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend and project: three times ``(B, h, N, d)`` give tokens ``(B, N, C)``."""
        out = self.attention(q, k, v, self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))

    def forward(self, x: Tensor) -> Tensor:
        """Aggregate tokens ``(B, N, C)``."""
        return self.attend(*self.heads(x))


class WindowMHRA(GlobalMHRA):
    """Global MHRA on a map, inside windows or on all of it: the same parameters serve both."""

    def map_heads(self, x: Tensor, window_size: int | None) -> Heads:
        """Return q, k, v of a map ``(B, H, W, C)``, a set of tokens for each window."""
        tokens = x.flatten(1, 2) if window_size is None else cut_windows(x, window_size)
        return self.heads(tokens)

    def attend_map(self, qkv: Heads, window_size: int | None, height: int, width: int) -> Tensor:
        """Attend and project: the heads of a map give the map ``(B, H, W, C)``."""
        tokens = self.attend(*qkv)
        if window_size is None:
            return tokens.unflatten(1, (height, width))
        return join_windows(tokens, window_size, height, width)


def cut_windows(x: Tensor, size: int) -> Tensor:
    """Cut ``(B, H, W, C)`` into ``(B * windows, size * size, C)``.

    The right and bottom are padded with zeros, which take part in attention: trained weights
    depend on it.
    """
    b, h, w, c = x.shape
    rows, columns = count_windows(h, size), count_windows(w, size)
    # Padding by nothing would be a copy; only a graph for all sizes has to go through it.
    if is_traced() or (rows * size, columns * size) != (h, w):
        x = F.pad(x, (0, 0, 0, columns * size - w, 0, rows * size - h))
    x = x.view(b, rows, size, columns, size, c)
    return x.transpose(2, 3).reshape(-1, size * size, c)


def join_windows(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """Put windows back into a map ``(B, height, width, C)``, without the padding."""
    rows, columns = count_windows(height, size), count_windows(width, size)
    x = windows.view(-1, rows, columns, size, size, windows.shape[-1]).transpose(2, 3)
    x = x.reshape(-1, rows * size, columns * size, windows.shape[-1])
    return x[:, :height, :width]


def count_windows(side: int, size: int) -> int:
    """Return how many windows cover a side."""
    # Not -(-side // size): an exported graph divides towards zero.
    return (side + size - 1) // size
