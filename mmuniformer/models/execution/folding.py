"""Exact folds for inference: fewer passes over memory, the same function.

Each fold moves an affine map into the linear map next to it:

- BatchNorm forward into the 1x1 convolution that reads it (``norm1`` into ``conv1``, ``norm2`` into
  ``mlp.fc1``), and backward into the convolution of a stem that it follows;
- the DPE's residual into the centre tap of its depthwise kernel;
- LayerNorm's scale and shift into the linear layer that reads it;
- LayerScale's factors into the layer that ends its branch.

A window's padding is zero between ``norm1`` and ``qkv``: there a shift can't be folded, so
``norm1`` of stage 3 keeps its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmuniformer.models.blocks import AttentionBlock, LocalBlock
from mmuniformer.models.hourglass import HourglassBlock
from mmuniformer.models.layers import LAYERS, ConvEmbed


def fold_stem(stem: ConvEmbed) -> None:
    """Fold each BatchNorm of a convolutional stem into the convolution before it."""
    layers = stem.proj
    for index in range(1, len(layers)):
        if isinstance(layers[index], _BatchNorm):
            layers[index - 1] = fuse_conv_bn_eval(layers[index - 1], layers[index])
            layers[index] = nn.Identity()


def fold_position(block: LocalBlock | AttentionBlock) -> None:
    """Make the DPE one convolution: a residual is an identity kernel."""
    old = block.pos_embed
    weight = old.weight
    conv = LAYERS[weight.ndim - 2].depthwise(
        len(weight), old.kernel_size[0], weight.device, weight.dtype
    )
    conv.weight.copy_(weight)
    conv.weight[(..., *(size // 2 for size in old.kernel_size))] += 1
    conv.bias.copy_(old.bias)
    block.pos_embed = conv


def fold_input(layer: nn.Linear | nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
    """Let a point-wise layer read ``x`` where it read ``x * scale + shift``."""
    weight = layer.weight.flatten(1)
    if layer.bias is None:
        layer.bias = nn.Parameter(weight.new_zeros(len(weight)))
    layer.bias += weight @ shift
    layer.weight *= scale.view(1, -1, *[1] * (layer.weight.ndim - 2))


def fold_output(layer: nn.Linear | nn.Conv2d, gamma: Tensor | None) -> None:
    """Let a layer give what LayerScale would make of it."""
    if gamma is not None:
        factors = gamma.flatten()
        layer.weight *= factors.view(-1, *[1] * (layer.weight.ndim - 1))
        layer.bias *= factors


def fold_batch_norm(norm: nn.BatchNorm2d, layer: nn.Conv2d) -> nn.Identity:
    """Fold a BatchNorm into the 1x1 convolution that reads it; return what takes its place."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    fold_input(layer, scale, norm.bias - norm.running_mean * scale)
    return nn.Identity()


def fold_layer_norm(norm: nn.LayerNorm, layer: nn.Linear) -> nn.LayerNorm:
    """Fold a LayerNorm's affine part into the layer that reads it; return what is left."""
    fold_input(layer, norm.weight, norm.bias)
    return nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)


def fold_local(block: LocalBlock) -> None:
    """Fold a local block."""
    fold_position(block)
    block.norm1 = fold_batch_norm(block.norm1, block.conv1)
    block.norm2 = fold_batch_norm(block.norm2, block.mlp.fc1)
    fold_output(block.conv2, block.gamma_1)
    fold_output(block.mlp.fc2, block.gamma_2)
    block.gamma_1 = block.gamma_2 = None


def fold_attention(block: AttentionBlock, windowed: bool) -> None:
    """Fold an attention block; ``windowed`` says that it may pad windows."""
    fold_position(block)
    if not windowed:
        block.norm1 = fold_layer_norm(block.norm1, block.attn.qkv)
    block.norm2 = fold_layer_norm(block.norm2, block.mlp.fc1)
    # Tokens that an hourglass drops follow the branches as they are before LayerScale.
    if not isinstance(block, HourglassBlock):
        fold_output(block.attn.proj, block.gamma_1)
        fold_output(block.mlp.fc2, block.gamma_2)
        block.gamma_1 = block.gamma_2 = None


@torch.no_grad()
def fold(module: nn.Module, windowed: bool = False) -> None:
    """Fold a block or a stem in place; leave other modules as they are."""
    if isinstance(module, ConvEmbed):
        fold_stem(module)
    elif isinstance(module, LocalBlock):
        fold_local(module)
    elif isinstance(module, AttentionBlock):
        fold_attention(module, windowed)
