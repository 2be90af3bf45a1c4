"""Multi-head relation aggregators (MHRA): local by convolution, global and windowed by attention.

UniFormer, section 3.2. Maps of tokens here are ``(B, H, W, C)``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmuniformer.models.attention import attention_weights, fused_attention, plain_attention


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
        """Aggregate a map ``(B, C, H, W)``."""
        return self.conv2(self.attn(self.conv1(x)))


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
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v, each ``(B, h, N, d)``, of tokens ``(B, N, C)``."""
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.num_heads, -1)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend and project: three times ``(B, h, N, d)`` give tokens ``(B, N, C)``."""
        out = self.attention(q, k, v, self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(*self.heads(x))

    def forward_with_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the aggregated tokens and the first token's attention row, ``(B, N)``.

        The row is the mean over heads. One row of its own costs less than the ``N x N`` matrix.
        """
        q, k, v = self.heads(x)
        row = attention_weights(q[:, :, :1], k).mean(1).squeeze(1)
        return self.attend(q, k, v), row


class WindowMHRA(GlobalMHRA):
    """Global MHRA on a map, inside windows or on all of it: the same parameters serve both."""

    def forward(self, x: Tensor, window_size: int | None = None) -> Tensor:
        """Aggregate ``(B, H, W, C)`` in windows of ``window_size`` tokens a side, None for one."""
        b, h, w, _ = x.shape
        if window_size is None:
            return super().forward(x.flatten(1, 2)).unflatten(1, (h, w))
        return join_windows(super().forward(cut_windows(x, window_size)), window_size, (b, h, w))


def cut_windows(x: Tensor, size: int) -> Tensor:
    """Cut ``(B, H, W, C)`` into ``(B * windows, size * size, C)``.

    The right and bottom are padded with zeros, which take part in attention: trained weights
    depend on it.
    """
    b, h, w, c = x.shape
    x = F.pad(x, (0, 0, 0, -w % size, 0, -h % size))
    x = x.view(b, x.shape[1] // size, size, x.shape[2] // size, size, c)
    return x.transpose(2, 3).reshape(-1, size * size, c)


def join_windows(windows: Tensor, size: int, shape: tuple[int, int, int]) -> Tensor:
    """Put windows back into a map of ``shape`` = (B, H, W) and crop the padding."""
    b, h, w = shape
    rows, columns = -(-h // size), -(-w // size)
    x = windows.view(b, rows, columns, size, size, -1).transpose(2, 3)
    return x.reshape(b, rows * size, columns * size, -1)[:, :h, :w]
