"""Gradients of depthwise convolutions on a CPU by the kernels of oneDNN that are fast.

Its depthwise kernel for the gradient of weights takes images and at most three columns. A kernel of
5 x 5, or of a clip, otherwise goes through a general one that takes ten to fifty times as long.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmuniformer.compat import compute_dtype, is_tracing
from mmuniformer.models.layers import Depthwise

FAST_TYPES = {torch.float32, torch.bfloat16}
"""What oneDNN computes in."""
FAST_WIDTHS = (3, 5, 7)
"""Columns of a kernel."""


def depthwise(layer: Depthwise, x: Tensor) -> Tensor:
    """Run a depthwise convolution whose gradients are computed as below."""
    if is_tracing() or not torch.is_grad_enabled() or x.device.type != 'cpu':
        return layer.plain(x)
    inputs = (x, layer.weight, layer.bias)
    dtype = compute_dtype(*inputs)
    known = {dtype, *(value.dtype for value in inputs)} <= FAST_TYPES
    fast = layer.kernel_size[-1] in FAST_WIDTHS and torch.backends.mkldnn.is_available()
    if not known or not fast:
        return layer.plain(x)
    return DepthwiseConvolution.apply(*(value.to(dtype) for value in inputs))


class DepthwiseConvolution(torch.autograd.Function):
    """Convolve each channel of a map ``(B, C, ..., H, W)`` by itself, keeping its size.

    Weights are ``(C, 1, ...)`` with odd sides, the bias ``(C,)``.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve."""
        return convolve(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what backward reads."""
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of map, weights and bias."""
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        axes = tuple(range(2, x.ndim))
        with torch.autocast(x.device.type, enabled=False):
            return (
                convolve(grad, weight.flip(axes)) if of_x else None,
                gradient_of_weight(x, weight, grad) if of_weight else None,
                grad.sum((0, *axes)) if of_bias else None,
            )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each channel by itself, keeping the size."""
    convolution = F.conv2d if x.ndim == 4 else F.conv3d
    padding = [side // 2 for side in weight.shape[2:]]
    return convolution(x, weight, bias, padding=padding, groups=len(weight))


def gradient_of_weight(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of the weights, as the weights are laid out in memory.

    That of three columns of weights at a time, for which the map is padded on one side, and of one
    frame of weights, which relates each frame of the gradient to another one of the map.
    """
    if x.ndim == 4:
        clips = (value.unsqueeze(2) for value in (x, weight, grad))
        return gradient_of_weight(*clips).squeeze(2)
    out = torch.zeros_like(weight)
    depth, height, width = weight.shape[2:]
    for left in range(0, width - 1, 2):
        before = width // 2 - left  # columns of zeros that these weights see beside the map
        padded = x if before == 1 else F.pad(x, (before, 2 - before))
        for index in range(depth):
            later = index - depth // 2  # frames from that of the gradient to that of the map
            count = x.shape[2] - abs(later)
            if count < 1:
                continue
            images, grads = (
                value.narrow(2, max(first, 0), count).transpose(1, 2).flatten(0, 1)
                for value, first in ((padded, later), (grad, -later))
            )
            out[:, :, index, :, left : left + 3] = torch.nn.grad.conv2d_weight(
                images, (len(weight), 1, height, 3), grads,
                padding=(height // 2, int(before == 1)), groups=len(weight),
            )  # fmt: skip
    return out
