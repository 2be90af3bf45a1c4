"""Weights of deployed dense layers in the order that oneDNN reads, not converted at each call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmuniformer.models.layers import Linear, Pointwise

MANY_TOKENS = 1024
"""The number of tokens for which oneDNN chooses the order; of more it is the same."""


class Packed(NamedTuple):
    """Packed weights, and of which state of which tensor they are."""

    weight: Tensor
    source: Tensor
    version: int


class PackedWeights:
    """The weights of a layer by the type that they are used in, packed when first used.

    They follow the layer's weights, and belong to this process: state dicts and copies of the layer
    are without them.
    """

    def __init__(self) -> None:
        self.by_type: dict[torch.dtype, Packed] = {}

    def __reduce__(self) -> tuple:
        return PackedWeights, ()

    def get(self, source: Tensor, dtype: torch.dtype) -> Tensor:
        """Return weights ``(out, in, ...)`` as a matrix of a type, packed if that is possible."""
        if source.is_inference():  # it does not tell when it changes
            return source.flatten(1).to(dtype)
        if not all(is_of(packed, source) for packed in self.by_type.values()):
            self.by_type.clear()
        packed = self.by_type.get(dtype)
        if packed is None:
            weight = packed_weight(source.detach().flatten(1).to(dtype))
            packed = self.by_type[dtype] = Packed(weight, source.detach(), source._version)
        return packed.weight


def packed_weight(weight: Tensor) -> Tensor:
    """Return weights ``(out, in)`` as oneDNN reads them: opaque to all other operators."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, MANY_TOKENS)


def is_of(packed: Packed, source: Tensor) -> bool:
    """Tell whether packed weights are those of a tensor as it is now."""
    kept = packed.source
    same = kept.shape == source.shape and kept.stride() == source.stride()
    return same and kept.data_ptr() == source.data_ptr() and packed.version == source._version


def pack(network: nn.Module) -> None:
    """Let the dense layers of a network keep packed weights."""
    for module in network.modules():
        if isinstance(module, (Linear, Pointwise)):
            module.packed = PackedWeights()
