"""The UniFormer block: DPE, MHRA and FFN, each with a residual (UniFormer, section 3.1).

    X = DPE(X_in) + X_in,    Y = MHRA(Norm(X)) + X,    Z = FFN(Norm(Y)) + Y

Maps are ``(B, C, H, W)``, with ``dims=3`` ``(B, C, T, H, W)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmuniformer.models.layers import FFN, LAYERS, DropPath, PolicyModule
from mmuniformer.models.mhra import GlobalMHRA


def layer_scale(init_value: float, shape: tuple[int, ...]) -> nn.Parameter | None:
    """Return LayerScale's factors for one branch, or None where ``init_value`` is 0."""
    return nn.Parameter(torch.full(shape, float(init_value))) if init_value else None


def scaled(gamma: Tensor | None, branch: Tensor) -> Tensor:
    """Multiply a branch by its LayerScale factors, if it has any."""
    return branch if gamma is None else gamma * branch


class LocalBlock(PolicyModule):
    """Block of stages 1 and 2: MHRA by convolutions, BatchNorm, convolutional FFN."""

    def __init__(
        self,
        dim: int,
        mlp_ratio: float,
        drop: float = 0.0,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 0.0,
        dims: int = 2,
    ):
        super().__init__()
        layers = LAYERS[dims]
        # The norms are registered before the convolutions: the frameworks' fuse_conv_bn folds a
        # BatchNorm into the convolution registered before it, but here norms precede them.
        self.norm1 = layers.batch_norm(dim)
        self.norm2 = layers.batch_norm(dim)
        self.conv1 = layers.pointwise(dim, dim)
        self.attn = layers.depthwise(dim, kernel_size=5)
        self.conv2 = layers.pointwise(dim, dim)
        self.pos_embed = layers.position(dim)
        self.mlp = FFN(dim, mlp_ratio, drop, layer=layers.pointwise)
        self.drop_path = DropPath(drop_path)
        self.gamma_1 = layer_scale(layer_scale_init_value, (1, dim) + (1,) * dims)
        self.gamma_2 = layer_scale(layer_scale_init_value, (1, dim) + (1,) * dims)

    def mhra(self, x: Tensor) -> Tensor:
        """Relate each pixel to its neighborhood of 5 a side."""
        return self.conv2(self.attn(self.conv1(x)))

    def mix(self, x: Tensor) -> Tensor:
        """Run DPE and MHRA."""
        x = self.pos_embed(x)
        return x + self.drop_path(scaled(self.gamma_1, self.mhra(self.norm1(x))))

    def transform(self, x: Tensor) -> Tensor:
        """Run the FFN."""
        return x + self.drop_path(scaled(self.gamma_2, self.mlp(self.norm2(x))))

    def plain(self, x: Tensor) -> Tensor:
        """Run the block on a map."""
        return self.transform(self.mix(x))


class AttentionBlock(PolicyModule):
    """The parts of the blocks of stages 3 and 4: LayerNorm, attention, linear FFN."""

    def __init__(
        self,
        dim: int,
        head_dim: int,
        mlp_ratio: float,
        qkv_bias: bool = True,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 0.0,
        dims: int = 2,
        eps: float = 1e-6,
    ):
        super().__init__()
        self.pos_embed = LAYERS[dims].position(dim)
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = GlobalMHRA(dim, head_dim, qkv_bias, attn_drop, drop)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = FFN(dim, mlp_ratio, drop)
        self.drop_path = DropPath(drop_path)
        self.gamma_1 = layer_scale(layer_scale_init_value, (dim,))
        self.gamma_2 = layer_scale(layer_scale_init_value, (dim,))


class GlobalBlock(AttentionBlock):
    """Block of stages 3 and 4: attention among all tokens, or in windows of ``window_size``."""

    def mix(self, x: Tensor, window_size: int | None = None) -> Tensor:
        """Run DPE on a map and MHRA on its tokens, which are returned as ``(B, H, W, C)``."""
        x = tokens_of(self.pos_embed(x))
        return x + self.drop_path(scaled(self.gamma_1, self.attn(self.norm1(x), window_size)))

    def transform(self, x: Tensor) -> Tensor:
        """Run the FFN on tokens."""
        return x + self.drop_path(scaled(self.gamma_2, self.mlp(self.norm2(x))))

    def plain(self, x: Tensor, window_size: int | None = None) -> Tensor:
        """Run the block on a map."""
        return map_of(self.transform(self.mix(x, window_size)))


class SplitBlock(GlobalBlock):
    """Block of clips: attention along time at each position, then within each frame.

    The first result feeds the second attention, but the residual past both is the input.
    """

    def __init__(self, dim: int, head_dim: int, *args: Any, eps: float = 1e-6, **kwargs: Any):
        super().__init__(dim, head_dim, *args, eps=eps, **kwargs)
        self.t_norm = nn.LayerNorm(dim, eps=eps)
        self.t_attn = GlobalMHRA(dim, head_dim, self.attn.qkv.bias is not None)

    def mix(self, x: Tensor, window_size: int | None = None) -> Tensor:
        """Run DPE on a map, and both attentions on its tokens ``(B, T, H, W, C)``."""
        x = tokens_of(self.pos_embed(x))
        columns = x.movedim(1, 3)
        tubes = columns.flatten(0, 2)  # (B * H * W, T, C)
        tubes = tubes + self.drop_path(self.t_attn(self.t_norm(tubes)))
        frames = tubes.view(columns.shape).movedim(3, 1).flatten(0, 1)  # (B * T, H, W, C)
        attended = self.attn(self.norm1(frames), window_size).view(x.shape)
        return x + self.drop_path(scaled(self.gamma_1, attended))


def tokens_of(x: Tensor) -> Tensor:
    """View a map ``(B, C, H, W)`` as tokens ``(B, H, W, C)``: contiguous if channels-last."""
    return x.movedim(1, -1)


def map_of(tokens: Tensor) -> Tensor:
    """View tokens ``(B, H, W, C)`` as a map ``(B, C, H, W)``."""
    return tokens.movedim(-1, 1)
