"""Layers of UniFormer: position embedding, FFN, patch embedding, norm over channels.

Maps are ``(B, C, H, W)``, with a time axis before H for ``dims=3``; tokens are ``(..., C)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PolicyModule(nn.Module):
    """A module whose ``plain`` method is its definition, and how it runs is a policy's choice.

    A policy gives what ``plain`` gives, in less time or memory; see ``models/execution``.
    """

    policy: Callable[..., Any] | None = None
    """Called with the module and the inputs in place of ``plain``."""
    recomputed = 'nothing'
    """What training recomputes of a block in backward: nothing, parts or all."""
    packed: Any = None
    """Weights as a policy laid them out for inference, in a deployed network."""

    def forward(self, *args: Any) -> Any:
        """Run by the policy, or plainly if there is none."""
        return self.plain(*args) if self.policy is None else self.policy(self, *args)


class Linear(PolicyModule, nn.Linear):
    """Linear layer on tokens."""

    def plain(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        return F.linear(x, self.weight, self.bias)


class Convolution(PolicyModule):
    """Convolution that a policy may run in another way."""

    def plain(self, x: Tensor) -> Tensor:
        """Convolve a map."""
        return self._conv_forward(x, self.weight, self.bias)


class Pointwise(Convolution):
    """Convolution with a kernel of one pixel."""

    def __init__(self, dim: int, out: int):
        super().__init__(dim, out, kernel_size=1)


class PointwiseConv2d(Pointwise, nn.Conv2d):
    """Pointwise convolution of images."""


class PointwiseConv3d(Pointwise, nn.Conv3d):
    """Pointwise convolution of clips."""


class Depthwise(Convolution):
    """Convolution of each channel by itself, with an odd kernel, that keeps the size."""

    def __init__(self, dim: int, kernel_size: int, device: Any = None, dtype: Any = None):
        super().__init__(
            dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, device=device, dtype=dtype
        )


class DepthwiseConv2d(Depthwise, nn.Conv2d):
    """Depthwise convolution of images."""


class DepthwiseConv3d(Depthwise, nn.Conv3d):
    """Depthwise convolution of clips."""


class DynamicPositionEmbedding(DepthwiseConv2d, nn.Conv2d):  # a base that init_cfg matches
    """DPE: a depthwise 3x3 convolution with a residual (UniFormer, section 3.3)."""

    def __init__(self, dim: int):
        super().__init__(dim, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """Add to each pixel what its neighborhood tells of its position."""
        return x + super().forward(x)


class DynamicPositionEmbedding3d(DepthwiseConv3d, nn.Conv3d):
    """DPE of clips: a depthwise 3x3x3 convolution with a residual."""

    def __init__(self, dim: int):
        super().__init__(dim, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """Add to each voxel what its neighborhood tells of its position."""
        return x + super().forward(x)


class Layers(NamedTuple):
    """The layers that depend on how many axes a map has besides batch and channels."""

    conv: type[nn.Conv2d | nn.Conv3d]
    pointwise: type[PointwiseConv2d | PointwiseConv3d]
    depthwise: type[DepthwiseConv2d | DepthwiseConv3d]
    batch_norm: type[nn.BatchNorm2d | nn.BatchNorm3d]
    position: type[DynamicPositionEmbedding | DynamicPositionEmbedding3d]
    channels_last: torch.memory_format


LAYERS = {
    2: Layers(
        nn.Conv2d,
        PointwiseConv2d,
        DepthwiseConv2d,
        nn.BatchNorm2d,
        DynamicPositionEmbedding,
        torch.channels_last,
    ),
    3: Layers(
        nn.Conv3d,
        PointwiseConv3d,
        DepthwiseConv3d,
        nn.BatchNorm3d,
        DynamicPositionEmbedding3d,
        torch.channels_last_3d,
    ),
}
"""By ``dims``: 2 for images, 3 for clips."""


class FFN(PolicyModule):
    """Two point-wise layers with GELU between: linear on tokens, 1x1 convolutions on maps."""

    def __init__(
        self, dim: int, ratio: float, drop: float = 0.0, layer: Callable[..., nn.Module] = Linear
    ):
        super().__init__()
        self.width = int(dim * ratio)
        self.fc1 = layer(dim, self.width)
        self.act = nn.GELU()
        self.fc2 = layer(self.width, dim)
        self.drop = nn.Dropout(drop)

    def plain(self, x: Tensor) -> Tensor:
        """Transform each token, or each pixel of a map, by itself."""
        return self.output(self.fc1(x))

    def output(self, hidden: Tensor) -> Tensor:
        """Map the hidden layer, as ``fc1`` gives it, to the output."""
        return self.drop(self.fc2(self.drop(self.act(hidden))))


class DropPath(nn.Module):
    """Stochastic depth: drop the branch of a whole image with probability ``rate`` in training."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero the branch of some images, and scale the others up to keep the mean."""
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
        """Normalize each pixel."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class PatchEmbed(nn.Module):
    """Embed the patches of a map: a convolution with kernel = stride, then LayerNorm (eps 1e-5).

    Sizes that the stride does not divide are floored.

    Args:
        in_channels: Channels of the input.
        dim: Channels of the output.
        stride: Side of a patch in pixels.
        time: Kernel and stride along the time axis of clips; None for images. The kernel is odd
            and padded, so that patches may overlap in time.
    """

    def __init__(
        self, in_channels: int, dim: int, stride: int, time: tuple[int, int] | None = None
    ):
        super().__init__()
        self.norm = MapLayerNorm(dim, eps=1e-5)
        kernel, step = [(side,) for side in time] if time else [(), ()]
        padding = tuple(side // 2 for side in kernel) + (0, 0)
        size = (stride, stride)
        conv = LAYERS[2 + len(kernel)].conv
        self.proj = conv(in_channels, dim, kernel + size, step + size, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Divide the sides by the stride, rounded down."""
        return self.norm(self.proj(x))


class ConvEmbed(nn.Module):
    """Convolutional embedding: overlapping 3x3 convolutions of stride 2 with BatchNorm.

    Stride 4 (stage 1) takes two of them with GELU between, stride 2 takes one. Kernels of clips
    are 3x3x3 whatever ``time`` says; the last convolution has its stride.
    """

    def __init__(
        self, in_channels: int, dim: int, stride: int, time: tuple[int, int] | None = None
    ):
        super().__init__()
        kind = LAYERS[3 if time else 2]
        conv, norm = kind.conv, kind.batch_norm
        first, last = ((1, 2, 2), (time[1], 2, 2)) if time else (2, 2)
        layers = [conv(in_channels, dim, 3, last, 1), norm(dim)]
        if stride == 4:
            half = dim // 2
            layers = [conv(in_channels, half, 3, first, 1), norm(half), nn.GELU()]
            layers += [conv(half, dim, 3, last, 1), norm(dim)]
        self.proj = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Divide the sides by the stride, rounded up."""
        return self.proj(x)
