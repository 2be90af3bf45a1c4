"""An optimizer's step in one kernel a parameter: PyTorch has it, and mmengine does not ask for it.

The recipes give each parameter a group of its own (333 of UperNet, small), and a step by single
operators takes longer than what it computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.utils import digit_version

from mmuniformer.registry import class_of

HAVE_FUSED = {torch.optim.Adam, torch.optim.AdamW}
OWN_CHOICE = {'fused', 'foreach', 'capturable', 'differentiable'}
"""Arguments of an optimizer that say how it steps."""
ON_CPU = digit_version(torch.__version__) >= digit_version('2.4')


def with_fused_step(settings: Any, device: str) -> Any:
    """Return settings of an optimizer wrapper whose Adam or AdamW steps in one kernel.

    Others are returned as they are: with a choice of their own, of other devices than CPU and CUDA,
    and of mixed precision: the gradient scaler leaves out steps of a fused optimizer inside of the
    kernel, where ``FiniteHook`` cannot tell them from steps that fail.
    """
    optimizer = settings.get('optimizer') if isinstance(settings, Mapping) else None
    if (
        not isinstance(optimizer, Mapping)
        or class_of({'type': 'OptimWrapper', **settings}, OPTIM_WRAPPERS) is not OptimWrapper
        or class_of(optimizer, OPTIMIZERS) not in HAVE_FUSED
        or OWN_CHOICE & optimizer.keys()
        or not (device == 'cuda' or device == 'cpu' and ON_CPU)
    ):
        return settings
    return {**settings, 'optimizer': {**optimizer, 'fused': True}}


def keep_step(wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Let optimizers step as they were built to, whatever a checkpoint says of another machine."""
    for each in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        optimizer = each.optimizer
        fused = optimizer.defaults.get('fused')
        for group in optimizer.param_groups:
            if 'fused' in group:
                group['fused'] = fused
            for parameter in group['params'] if fused else ():
                state = optimizer.state.get(parameter, {})
                if 'step' in state:
                    state['step'] = state['step'].to(parameter.device, torch.float32)
