"""Mixed precision on the CPU: mmengine's wrapper asks for a GPU, the arithmetic does not."""

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module(force=True)
class AmpOptimWrapperOnCPU(AmpOptimWrapper):
    """Autocast without a loss scale, which bf16 does not need."""

    def __init__(self, dtype, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.cast_dtype = getattr(torch, dtype)
        self._scale_update_param = None
        # torch below 2.3 has no other; disabled, it asks for no GPU
        self.loss_scaler = torch.cuda.amp.GradScaler(enabled=False)
