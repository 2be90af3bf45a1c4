"""timm's learning rate: a warm-up, and a cosine whose clock has run meanwhile."""

from __future__ import annotations

import math

from mmengine.optim import CosineAnnealingLR

from mmuniformer.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class RunningCosineLR(CosineAnnealingLR):
    """A cosine from step 0 to ``T_max`` that sets the rate from ``begin`` on.

    mmengine's starts at ``begin``, or from 0 on lowers what a warm-up sets. After ``T_max`` the
    rate stays at ``eta_min``. The arguments are those of mmengine's.

    Example:
        >>> warm_up = dict(type='LinearLR', start_factor=1e-3, end=6)
        >>> cosine = dict(type='mmuniformer.RunningCosineLR', begin=5, T_max=300, eta_min=1e-5)
    """

    def _get_value(self) -> list[float]:
        part = min((self.begin + self.last_step) / self.T_max, 1)
        share = (1 + math.cos(math.pi * part)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_values]
