"""How a backbone runs, never what it computes: policies for modules that have ``plain`` lines.

Each file is one idea and gives what ``plain`` gives (tested). A network without policies is
correct, only slower and larger in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmuniformer.compat import is_compiling
from mmuniformer.models.blocks import GlobalBlock, LocalBlock
from mmuniformer.models.execution.attention import fused_attention
from mmuniformer.models.execution.dense import linear, overwriting_ffn, pointwise
from mmuniformer.models.execution.depthwise import depthwise
from mmuniformer.models.execution.recompute import IN_PARTS, recompute
from mmuniformer.models.execution.tiling import TILED, tileable
from mmuniformer.models.hourglass import HourglassBlock
from mmuniformer.models.layers import (
    FFN,
    DepthwiseConv2d,
    DepthwiseConv3d,
    DynamicPositionEmbedding,
    DynamicPositionEmbedding3d,
    Linear,
    PointwiseConv2d,
    PointwiseConv3d,
    PolicyModule,
)
from mmuniformer.models.mhra import GlobalMHRA, plain_attention


def run_block(block: PolicyModule, *args: Any) -> Any:
    """Run a block: recomputing in training, in tiles in inference, else by its plain forward."""
    if block.training and torch.is_grad_enabled():
        if block.recomputed == 'all':
            return recompute(block, block.plain, *args)
        # A compiler decides by itself what its graph keeps.
        if block.recomputed == 'parts' and not is_compiling():
            return IN_PARTS[type(block)](block, *args)
    elif type(block) in TILED and tileable(block, args[0]):
        return TILED[type(block)](block, *args)
    return block.plain(*args)


POLICIES = {
    Linear: linear,
    PointwiseConv2d: pointwise,
    PointwiseConv3d: pointwise,
    FFN: overwriting_ffn,
    LocalBlock: run_block,
    GlobalBlock: run_block,
    HourglassBlock: run_block,
    DepthwiseConv2d: depthwise,
    DepthwiseConv3d: depthwise,
    DynamicPositionEmbedding: depthwise,
    DynamicPositionEmbedding3d: depthwise,
}


def set_policies(
    network: nn.Module, fused_attn: bool = True, recomputed: str = 'parts', policies: Any = POLICIES
) -> None:
    """Let the modules of a network run by their policies.

    Attention runs by the fused kernel or plainly; training recomputes nothing, parts or all of a
    block in backward. Without policies all run by their plain forward.
    """
    for module in network.modules():
        if isinstance(module, PolicyModule):
            module.policy = policies.get(type(module))  # others, such as subclasses, run plainly
            module.recomputed = recomputed
        elif isinstance(module, GlobalMHRA):
            module.attention = fused_attention if fused_attn else plain_attention
