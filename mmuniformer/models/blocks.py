"""The UniFormer block: DPE, then MHRA, then FFN, each with a residual (UniFormer, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmuniformer.models.execution.recompute import Recomputing
from mmuniformer.models.execution.tiling import add_pointwise, by_stripes
from mmuniformer.models.layers import FFN, DropPath, DynamicPositionEmbedding, PointwiseConv
from mmuniformer.models.mhra import GlobalMHRA, LocalMHRA, WindowMHRA


def layer_scale(init_value: float, shape: tuple[int, ...]) -> nn.Parameter | None:
    """LayerScale's factors for one branch, or None where ``init_value`` is 0."""
    return nn.Parameter(torch.full(shape, float(init_value))) if init_value else None


def scaled(gamma: Tensor | None, branch: Tensor) -> Tensor:
    """Multiply a branch by its LayerScale factors, if it has any."""
    return branch if gamma is None else gamma * branch


class LocalBlock(LocalMHRA, Recomputing):
    """Block of stages 1 and 2: local MHRA, BatchNorm, convolutional FFN, on maps."""

    def __init__(
        self,
        dim: int,
        mlp_ratio: float,
        drop: float = 0.0,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 0.0,
    ):
        super().__init__(dim)
        # The frameworks' fuse_conv_bn folds a BatchNorm into the convolution registered before
        # it: wrong here, where the norms come first. So they are registered first.
        norms = {'norm1': nn.BatchNorm2d(dim), 'norm2': nn.BatchNorm2d(dim)}
        self._modules = norms | self._modules
        self.pos_embed = DynamicPositionEmbedding(dim)
        self.mlp = FFN(dim, mlp_ratio, drop, layer=PointwiseConv)
        self.drop_path = DropPath(drop_path)
        self.gamma_1 = layer_scale(layer_scale_init_value, (1, dim, 1, 1))
        self.gamma_2 = layer_scale(layer_scale_init_value, (1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        reach = self.pos_embed.padding[0] + self.attn.padding[0]
        x = by_stripes(self, x, self.relate, reach)
        # On these large maps even the FFN's first layer costs less to repeat than to keep.
        return add_pointwise(self, x, self.feed_branch, self.mlp.width)

    def relate(self, x: Tensor) -> Tensor:
        """Run DPE and MHRA on a map."""
        x = self.pos_embed(x)
        relations = self.aggregate(self.part(self.project, x))
        return x + self.drop_path(scaled(self.gamma_1, relations))

    def feed_branch(self, x: Tensor) -> Tensor:
        """Return what the FFN adds to a map."""
        return self.drop_path(scaled(self.gamma_2, self.part(self.feed, x)))

    def project(self, x: Tensor) -> Tensor:
        """Norm and project a map for aggregation."""
        return self.conv1(self.norm1(x))

    def feed(self, x: Tensor) -> Tensor:
        """Norm and feed a map forward."""
        return self.mlp(self.norm2(x))


class AttentionBlock(Recomputing):
    """What the blocks of stages 3 and 4 share: LayerNorm (eps 1e-6), attention, linear FFN."""

    mhra: type[GlobalMHRA] = GlobalMHRA

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
        fused: bool = True,
    ):
        super().__init__()
        self.pos_embed = DynamicPositionEmbedding(dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = self.mhra(dim, head_dim, qkv_bias, attn_drop, drop, fused)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = FFN(dim, mlp_ratio, drop)
        self.drop_path = DropPath(drop_path)
        self.gamma_1 = layer_scale(layer_scale_init_value, (dim,))
        self.gamma_2 = layer_scale(layer_scale_init_value, (dim,))

    def feed(self, tokens: Tensor) -> Tensor:
        """Norm and feed tokens ``(..., C)`` forward."""
        hidden = self.part(lambda x: self.mlp.fc1(self.norm2(x)), tokens)
        return self.part(self.mlp.contract, hidden)


class GlobalBlock(AttentionBlock):
    """Block of stages 3 and 4; ``window_size`` in tokens makes it a window block."""

    mhra = WindowMHRA

    def forward(self, x: Tensor, window_size: int | None = None) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        # Tokens of a channels-last map are a view: no copy on the way in or out.
        x = self.pos_embed(x).permute(0, 2, 3, 1)
        qkv = self.part(lambda x: self.attn.map_heads(self.norm1(x), window_size), x)
        relations = self.attn.attend_map(qkv, window_size, *x.shape[1:3])
        x = x + self.drop_path(scaled(self.gamma_1, relations))
        return add_pointwise(self, x.permute(0, 3, 1, 2), self.feed_branch, self.mlp.width)

    def feed_branch(self, x: Tensor) -> Tensor:
        """Return what the FFN adds to a map ``(B, C, H, W)``."""
        fed = self.feed(x.permute(0, 2, 3, 1))
        return self.drop_path(scaled(self.gamma_2, fed)).permute(0, 3, 1, 2)
