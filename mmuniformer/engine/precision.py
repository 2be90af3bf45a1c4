"""Half precision inside the parts of a model, float32 between them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import MutableMapping
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


def keep_interfaces_in_float32(model: nn.Module) -> None:
    """Let the parts of a model hand float32 to each other under autocast.

    Convolutions and matrix products inside them still run in half precision. What lies between
    (box decoding, RoI pooling, NMS, NumPy) either lacks bf16 or loses accuracy in half precision.
    """
    for name, module in model.named_modules():
        # A heatmap head's own output goes straight to the decoder, past the hook of the head.
        if isinstance(module, BaseModule) or name.endswith('final_layer'):
            module.register_forward_hook(lambda module, args, output: as_float32(output))


def as_float32(value: Any) -> Any:
    """Convert the half-precision tensors in nested containers; these keep their types.

    Containers are lists, tuples (named ones, too), mappings, dataclasses and mmengine's data
    elements. Everything else is returned as it is.
    """
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, tuple) and hasattr(value, '_fields'):
        return type(value)(*map(as_float32, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(as_float32, value))
    if isinstance(value, MutableMapping):
        value = copy.copy(value)
        for key in value:
            value[key] = as_float32(value[key])
    elif isinstance(value, BaseDataElement):
        value = value.new()
        for key, entry in value.items():
            setattr(value, key, as_float32(entry))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = copy.copy(value)
        for field in dataclasses.fields(value):
            # Frozen ones, too; the copy is nobody else's yet.
            object.__setattr__(value, field.name, as_float32(getattr(value, field.name)))
    return value
