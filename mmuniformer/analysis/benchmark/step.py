"""A whole training step: the config's optimizer, and what the step has to multiply."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmuniformer.engine.fused import with_fused_step

PRECISION = ('type', 'dtype', 'loss_scale')
"""Entries of ``optim_wrapper`` that follow from the type computed in."""


def build_optimizer(
    cfg: Config, model: nn.Module, device: torch.device, dtype: str
) -> OptimWrapper:
    """Build a config's optimizer; in half precision on a GPU with a loss scale, as runners do."""
    settings = copy.deepcopy(cfg.optim_wrapper)
    for name in (*PRECISION, 'accumulative_counts'):
        settings.pop(name, None)
    if dtype != 'float32' and device.type == 'cuda':
        settings.update(type='AmpOptimWrapper', dtype=dtype, loss_scale='dynamic')
    return build_optim_wrapper(model, with_fused_step(settings, device.type))


def multiply_adds(call: Callable[[], Any]) -> float:
    """Count the multiply-adds of what a call runs, backward included."""
    counts = {torch.ops.aten.convolution_backward: backward_of_convolution}
    with FlopCounterMode(display=False, custom_mapping=counts) as counter:
        call()
    return counter.get_total_flops() / 2


def backward_of_convolution(
    grad: Sequence[int], x: Sequence[int], weight: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    """Count a convolution's backward from shapes; PyTorch's own takes grouped ones for dense."""
    transposed, wanted = args[4], args[7][:2]
    return 2 * math.prod(x if transposed else grad) * math.prod(weight[1:]) * sum(wanted)
