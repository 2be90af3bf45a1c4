"""Weights of deployed dense layers in the order that oneDNN reads, not converted at each call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmuniformer.models.layers import Linear, Pointwise

MANY_TOKENS = 1024
"""The number of tokens for which oneDNN chooses the order; of more it is the same."""


class PackedWeights:
    """The weights of a layer by the type that they are used in, packed when first used.

    They follow the layer's weights, and belong to this process: state dicts and copies of the layer
    are without them.
    """

    def __init__(self) -> None:
        self.source: Tensor | None = None  # what they are made of, and of which version of it
        self.version = 0
        self.by_type: dict[torch.dtype, Tensor] = {}

    def __reduce__(self) -> tuple:
        return PackedWeights, ()

    def get(self, source: Tensor, dtype: torch.dtype) -> Tensor:
        """Return weights ``(out, in, ...)`` as a matrix of a type, packed if that is possible."""
        if source.is_inference():  # it does not tell when it changes
            return source.flatten(1).to(dtype)
        if not self.are_of(source):
            self.source, self.version, self.by_type = source.detach(), source._version, {}
        if dtype not in self.by_type:
            self.by_type[dtype] = packed_weight(self.source.flatten(1).to(dtype))
        return self.by_type[dtype]

    def are_of(self, source: Tensor) -> bool:
        """Tell whether they are those of a tensor as it is now."""
        kept = self.source
        if kept is None or (kept.shape, kept.stride()) != (source.shape, source.stride()):
            return False
        return kept.data_ptr() == source.data_ptr() and self.version == source._version


def packed_weight(weight: Tensor) -> Tensor:
    """Return weights ``(out, in)`` as oneDNN reads them: opaque to all other operators."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, MANY_TOKENS)


def pack(network: nn.Module) -> None:
    """Let the dense layers of a network keep packed weights."""
    for module in network.modules():
        if isinstance(module, (Linear, Pointwise)):
            module.packed = PackedWeights()
