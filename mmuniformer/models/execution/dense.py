"""Dense layers on a CPU by oneDNN, faster at them than the BLAS; in inference with their GELU."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmuniformer.compat import compute_dtype, is_compiling, needs_public_operators
from mmuniformer.models.blocks import map_of, tokens_of
from mmuniformer.models.execution.packing import packed_weight
from mmuniformer.models.execution.tiling import as_map, may_overwrite
from mmuniformer.models.layers import (
    FFN,
    LAYERS,
    Linear,
    Pointwise,
    PointwiseConv2d,
    PointwiseConv3d,
)


def linear(layer: Linear, x: Tensor) -> Tensor:
    """Run a linear layer as oneDNN's inner product or, as with gradients, as a 1x1 convolution."""
    # oneDNN has no float64; compilers and exporters choose kernels of their own.
    if x.device.type != 'cpu' or x.dtype == torch.float64 or is_compiling():
        return layer.plain(x)
    if dtype := preferred_dtype(layer, x):
        return inner_product(layer, x, dtype)
    rows = as_map(x.reshape(-1, x.shape[-1]))
    out = F.conv2d(rows, layer.weight[..., None, None], layer.bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def pointwise(layer: Pointwise, x: Tensor) -> Tensor:
    """Run a 1x1 convolution as oneDNN's inner product in inference."""
    dtype = preferred_dtype(layer, x)
    return layer.plain(x) if dtype is None else inner_product(layer, x, dtype)


def overwriting_ffn(mlp: FFN, x: Tensor) -> Tensor:
    """Run an FFN in inference, GELU as a part of the product before it or else in place.

    The hidden layer, which is the widest map, goes through memory once less.
    """
    if type(mlp.act) is not nn.GELU or not may_overwrite(mlp):
        return mlp.plain(x)
    dtype, approximate = inner_product_dtype(mlp.fc1, x), mlp.act.approximate
    if dtype is None:
        return mlp.fc2(torch.ops.aten.gelu_(mlp.fc1(x), approximate=approximate))
    return mlp.fc2(inner_product(mlp.fc1, x, dtype, 'gelu', approximate))


def preferred_dtype(layer: Linear | Pointwise, x: Tensor) -> torch.dtype | None:
    """Return the type in which a layer runs fastest as an inner product, None where it does not."""
    dtype = inner_product_dtype(layer, x)
    # Without packed weights a convolution in bfloat16 is as fast or faster.
    return dtype if dtype is torch.float32 or layer.packed is not None else None


def inner_product_dtype(layer: nn.Module, x: Tensor) -> torch.dtype | None:
    """Return the type in which oneDNN's inner product may run a layer, None where it may not."""
    if torch.is_grad_enabled() or needs_public_operators() or x.device.type != 'cpu':
        return None
    if type(layer) in (PointwiseConv2d, PointwiseConv3d):
        layout = LAYERS[layer.weight.ndim - 2].channels_last
        if x.ndim != layer.weight.ndim or not x.is_contiguous(memory_format=layout):
            return None
    elif type(layer) is not Linear:
        return None
    tensors = [value for value in (x, layer.weight, layer.bias) if value is not None]
    # Subclasses of tensors, such as quantized ones, have operators of their own.
    if not {type(value) for value in tensors} <= {nn.Parameter, Tensor}:
        return None
    dtype = compute_dtype(*tensors)
    known = dtype is not None and torch._C._get_mkldnn_enabled() and has_inner_product(dtype)
    return dtype if known else None


def inner_product(
    layer: Linear | Pointwise,
    x: Tensor,
    dtype: torch.dtype,
    activation: str = 'none',
    approximate: str = 'none',
) -> Tensor:
    """Run a layer on tokens ``(..., C)``, a convolution on a map; then GELU if asked for."""
    if layer.packed is None:
        weight = layer.weight.flatten(1).to(dtype)
    else:
        weight = layer.packed.get(layer.weight, dtype)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    is_map = isinstance(layer, Pointwise)
    tokens = tokens_of(x) if is_map else x
    out = linear_pointwise(tokens.to(dtype), weight, bias, activation, approximate)
    return map_of(out) if is_map else out


def linear_pointwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, approximate: str = 'none'
) -> Tensor:
    """Call oneDNN's inner product on operands of one type, the weights as they are or packed."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], approximate)


@functools.cache
def has_inner_product(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN's inner product with GELU runs in a type and is right.

    PyTorch has the operators for its compiler alone: they may change or be absent.
    """
    x, weight = (
        torch.linspace(-1, 1, 32 * size, dtype=torch.float64, device='cpu').view(size, 32).to(dtype)
        for size in (3, 5)
    )
    expected = F.gelu(x.double() @ weight.double().T)
    try:
        found = [
            linear_pointwise(x, each, None, 'gelu') for each in (weight, packed_weight(weight))
        ]
    except (AttributeError, RuntimeError, TypeError):
        return False
    errors = ((out.double() - expected).abs().max() / expected.max() for out in found)
    return all(error < 4 * torch.finfo(dtype).eps for error in errors)
