"""Half precision inside the parts of a model, float32 between them."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn


def keep_interfaces_in_float32(model: nn.Module) -> None:
    """Let the parts of a model hand float32 to each other under autocast.

    Convolutions and matrix products inside them still run in half precision. What lies between
    (box decoding, RoI pooling, NMS, NumPy) either lacks bf16 or loses accuracy in half precision.
    """
    for name, module in model.named_modules():
        # A heat-map head's own output goes straight to the decoder, past the hook of the head.
        if isinstance(module, BaseModule) or name.endswith('final_layer'):
            module.register_forward_hook(lambda module, args, output: as_float32(output))


def as_float32(value: Any) -> Any:
    """Convert the half-precision tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, (list, tuple)):
        return type(value)(as_float32(entry) for entry in value)
    if isinstance(value, dict):
        return {key: as_float32(entry) for key, entry in value.items()}
    return value
