"""Half precision inside the parts of a model, float32 between them."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


def keep_interfaces_in_float32(model: nn.Module) -> None:
    """Let the parts of a model hand float32 to each other under autocast.

    Convolutions and products inside still run in half precision. What lies between (box decoding,
    RoI pooling, NMS, NumPy) lacks bf16 or accuracy.
    """
    for name, module in model.named_modules():
        # A heatmap head's own output goes straight to the decoder, past the hook of the head.
        if isinstance(module, BaseModule) or name.endswith('final_layer'):
            module.register_forward_hook(lambda module, args, output: as_float32(output))


def as_float32(value: Any) -> Any:
    """Convert half-precision tensors, also in lists, tuples, dicts and mmengine's data elements."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, (list, tuple)):
        entries = map(as_float32, value)
        return type(value)(*entries) if hasattr(value, '_fields') else type(value)(entries)
    if isinstance(value, dict):
        converted = value.copy()  # of the same type, whatever its constructor takes
        converted.update({key: as_float32(entry) for key, entry in value.items()})
        return converted
    if isinstance(value, BaseDataElement):
        return value.new(**{key: as_float32(entry) for key, entry in value.items()})
    return value
