"""Small layers of UniFormer: position embedding, FFN, patch embedding, norm over channels.

Maps are ``(B, C, H, W)``; tokens are ``(..., C)``.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmuniformer.models.execution.tiling import as_map, unwatched

PointwiseConv = partial(nn.Conv2d, kernel_size=1)


class Linear(nn.Linear):
    """Linear layer; on a CPU as the 1x1 convolution that it is, which oneDNN runs faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Project tokens."""
        # oneDNN has no float64; compilers and exporters choose kernels of their own.
        if x.device.type != 'cpu' or x.dtype == torch.float64 or torch.compiler.is_compiling():
            return super().forward(x)
        rows = as_map(x.reshape(-1, x.shape[-1]))
        out = F.conv2d(rows, self.weight[..., None, None], self.bias)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class GELU(nn.GELU):
    """GELU that can overwrite its input: one wide map less to bring from memory."""

    def overwrite(self, x: Tensor) -> Tensor:
        """Change ``x`` and return it."""
        return torch.ops.aten.gelu_(x, approximate=self.approximate)


class DynamicPositionEmbedding(nn.Conv2d):
    """DPE: a depthwise 3x3 convolution added to its input (UniFormer, section 3.3)."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """Add its position to each pixel of a map."""
        return x + super().forward(x)


class FFN(nn.Module):
    """Two point-wise layers with GELU between: linear on tokens, 1x1 convolutions on maps."""

    def __init__(self, dim: int, ratio: float, drop: float = 0.0, layer: type = Linear):
        super().__init__()
        self.width = int(dim * ratio)
        self.fc1 = layer(dim, self.width)
        self.act = GELU()
        self.fc2 = layer(self.width, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return self.contract(self.fc1(x))

    def contract(self, hidden: Tensor) -> Tensor:
        """Finish from what ``fc1`` gave; in inference it is overwritten."""
        act = self.act
        if type(act) is GELU and unwatched(act) and unwatched(self.fc1):
            act = act.overwrite
        return self.drop(self.fc2(self.drop(act(hidden))))


class DropPath(nn.Module):
    """Stochastic depth: drop the branch of a whole image with probability ``rate`` in training."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop the branches of some images in training."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        """Show the rate where the model is printed."""
        return f'rate={self.rate:.3f}'


class MapLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map ``(B, C, H, W)``; no copy where it is channels-last."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """Cut a map into patches: a convolution with kernel = stride, then LayerNorm (eps 1e-5).

    Sizes that the stride does not divide are floored.
    """

    def __init__(self, in_channels: int, dim: int, stride: int):
        super().__init__()
        self.norm = MapLayerNorm(dim, eps=1e-5)
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Divide the sides by the stride."""
        return self.norm(self.proj(x))


class ConvEmbed(nn.Module):
    """Convolutional embedding: overlapping 3x3 convolutions of stride 2 with BatchNorm.

    Stride 4 (stage 1) takes two of them with GELU between, stride 2 takes one.
    """

    def __init__(self, in_channels: int, dim: int, stride: int):
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=3, stride=2, padding=1)
        layers = [conv(in_channels, dim), nn.BatchNorm2d(dim)]
        if stride == 4:
            half = dim // 2
            layers = [conv(in_channels, half), nn.BatchNorm2d(half), nn.GELU()]
            layers += [conv(half, dim), nn.BatchNorm2d(dim)]
        self.proj = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Divide the sides by the stride, rounded up."""
        return self.proj(x)
